//! What is in a segment, for people and tools. Works on read-only segments, and believes nothing.

use crosslock_core::primitive::{AtomicU32, Ordering, fence};
use crosslock_core::{CpuId, Event, Name};
use rustix::fs::OFlags;

use crate::alive::is_of_dead;
use crate::directory::{Entry, Object, ObjectType};
use crate::error::Result;
use crate::file;
use crate::participant::{Record, incarnation, is_used, name};
use crate::registry::is_leased;
use crate::segment::{Segment, SegmentContext};

/// How a participant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// It has died; when its process has, too, the slot is given to the next one who registers.
    Dead,
    /// It has died in a queue of a spin lock: those behind it wait for ever. The slot is lost.
    Wedged,
}

/// A thread that has registered, as it described itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// Its number.
    pub slot: CpuId,
    /// Which domain it is of: its kernel.
    pub domain: usize,
    /// How often the slot has been given to somebody, this one included.
    pub incarnation: u32,
    /// Proven by the kernel.
    pub liveness: Liveness,
    /// Process, in the participant's own process-id namespace.
    pub pid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// Name of the thread, at most 24 bytes.
    pub name: String,
    /// When it registered: nanoseconds since the Unix epoch.
    pub registered_ns: u64,
    /// How many queues it waits in now, nested.
    pub depth: u32,
    /// Counts by [`Event::index`], of the slot since the segment's creation.
    pub counters: [u64; Event::COUNT],
}

/// The thread that a participant is or was, as it described itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Process, in the participant's own process-id namespace.
    pub pid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// Name of the thread, at most 24 bytes.
    pub thread: String,
    /// Which domain it is of, if that is another kernel's than this one's.
    pub domain: Option<usize>,
}

/// A named object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub ty: ObjectType,
    /// Where it is in the segment, in bytes.
    pub offset: u64,
    /// Its first 32 bits: the lock word of most locks.
    pub word: u32,
}

impl Segment {
    /// All participants that are registered, or died so.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where the kernel cannot be asked who lives.
    pub fn participants(&self) -> Result<Vec<Participant>> {
        let segment = self.inner();
        let probe = segment.probe(OFlags::RDONLY)?;
        let mut found = Vec::new();
        for (slot, (record, per_cpu)) in segment.records().iter().zip(segment.per_cpu_table()).enumerate() {
            let state = record.state.load(Ordering::Acquire);
            let (true, Some(slot)) = (is_used(state), CpuId::new(slot)) else { continue };
            let depth = per_cpu.depth();
            let died = name(slot, state).is_none_or(|name| segment.has_died(name));
            // Another kernel's leases are not to be seen here.
            let lives = !died && (!segment.is_near(slot) || is_leased(segment, &probe, slot)?);
            let liveness = match (lives, depth) {
                (true, _) => Liveness::Alive,
                (false, 0) => Liveness::Dead,
                (false, _) => Liveness::Wedged,
            };
            found.push(Participant {
                slot,
                domain: segment.domain_of(slot),
                incarnation: incarnation(state),
                liveness,
                pid: record.pid.load(Ordering::Relaxed),
                tid: record.tid.load(Ordering::Relaxed),
                name: crate::text::Text::load(&record.name).to_string(),
                registered_ns: record.registered_ns.load(Ordering::Relaxed),
                depth,
                counters: core::array::from_fn(|index| record.counters[index].load(Ordering::Relaxed)),
            });
        }
        Ok(found)
    }

    /// Which thread `name` is or was. `None` where its slot has been given to another since.
    ///
    /// ```
    /// let segment = crosslock::Options::new().create_memfd("example")?;
    /// let me = segment.context()?.me()?;
    /// assert_eq!(segment.identify(me).map(|thread| thread.pid), Some(std::process::id()));
    /// # Ok::<(), crosslock::Error>(())
    /// ```
    #[must_use]
    pub fn identify(&self, name: Name) -> Option<Identity> {
        self.inner().identity(name)
    }

    /// Whether its file still has a name, by which others find it; a memfd never has. A segment that was removed is
    /// shared by those who have it attached, until the last of them ends.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn is_still_named(&self) -> Result<bool> {
        file::has_name(self.inner().label(), self.inner().description())
    }

    /// The counts of all participants together, those that have left included, by [`Event::index`].
    #[must_use]
    pub fn counters(&self) -> [u64; Event::COUNT] {
        let records = self.inner().records();
        core::array::from_fn(|index| {
            records
                .iter()
                .fold(0, |sum: u64, record| sum.wrapping_add(record.counters[index].load(Ordering::Relaxed)))
        })
    }

    /// All objects, in the order of the directory; damaged entries are left out.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectInfo> {
        let segment = self.inner();
        let ready = segment.entries().iter().filter_map(Entry::ready);
        let sound = ready.filter(|object| segment.checked_range(object).is_ok());
        sound.map(|object| ObjectInfo::of(segment, &object)).collect()
    }
}

impl SegmentContext {
    /// As [`Segment::identify`].
    pub(crate) fn identity(&self, name: Name) -> Option<Identity> {
        let record = self.records().get(name.slot().index())?;
        // Acquire: pairs with the Release of who described itself.
        let state = record.state.load(Ordering::Acquire);
        let identity = Identity {
            pid: record.pid.load(Ordering::Relaxed),
            tid: record.tid.load(Ordering::Relaxed),
            thread: crate::text::Text::load(&record.name).to_string(),
            domain: (!self.is_near(name.slot())).then(|| self.domain_of(name.slot())),
        };
        // Acquire: what was read above was there before the state is looked at again.
        fence(Ordering::Acquire);
        let describes = incarnation(state) == name.incarnation()
            && record.state.load(Ordering::Relaxed) == state
            && (is_used(state) || self.is_of_last(name.slot(), record));
        describes.then_some(identity)
    }

    /// Whether the record of a slot that nobody is in is still that of the last one, and not of one who died while it
    /// registered: who leaves keeps its thread id in its alive word, which the kernel takes from who dies.
    fn is_of_last(&self, slot: CpuId, record: &Record) -> bool {
        let tid = record.tid.load(Ordering::Relaxed);
        let word = self.alive_word(slot).map_or(0, |word| word.load(Ordering::Acquire));
        is_of_dead(word) && word & libc::FUTEX_TID_MASK == tid
    }
}

impl ObjectInfo {
    /// Of an object that was found sound.
    pub(crate) fn of(segment: &SegmentContext, object: &Object) -> Self {
        let word = segment.checked_range(object).ok().filter(|range| range.len() >= size_of::<AtomicU32>());
        let word =
            word.map_or(0, |range| segment.mapping().at::<AtomicU32>(range.start).load(Ordering::Relaxed));
        Self { name: object.name.to_string(), ty: object.ty, offset: object.offset, word }
    }
}
