//! A segment that this process has attached.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, HashEntry, PerCpu, RawRobust, Seat};
use rustix::fs::OFlags;

use crate::barrier::{self, Release};
use crate::bells::Bells;
use crate::description::{Description, InChild, generation, reopen};
use crate::directory::Entry;
use crate::domain::Doorbell;
use crate::error::{Error, Result};
use crate::file;
use crate::header::{BUMP_OFFSET, CREATION_OFFSET, Geometry, HIGH_OFFSET};
use crate::home::Home;
use crate::lease::{Lease, Mode};
use crate::mapping::Mapping;
use crate::participant::Record;
use crate::place;

/// A piece of memory that processes share, with participants, locks and named objects in it.
///
/// A handle: cheap to clone; the memory is unmapped with the last one, and with the last [`Mutex`] or other lock in it.
///
/// [`Mutex`]: crate::Mutex
#[derive(Clone)]
pub struct Segment(Arc<SegmentContext>);

/// An attached segment as the locks in it see it: the running thread is a CPU, by its participant slot.
///
/// Implements [`Context`](crosslock_core::Context) and [`PvOps`](crosslock_core::PvOps) for spin locks, and
/// [`RobustOps`](crosslock_core::RobustOps) for robust ones. A thread is registered when it first has to wait for a
/// spin lock, or first takes a robust one; from then on until it ends it occupies a slot.
pub struct SegmentContext {
    label: Box<str>,
    geometry: Geometry,
    mapping: Mapping,
    /// Outlives this, if a thread has a lease by it that did not see the end.
    description: Arc<Description>,
    writable: bool,
    /// Of no other in this process, ever; never 0.
    id: u64,
    /// [`Release::Store`].
    is_released_by_store: bool,
    /// Which domain this process's kernel is.
    domain: usize,
    /// What of it does not lie in the segment.
    home: Option<Home>,
    doorbell: OnceLock<Box<Doorbell>>,
    bells: Bells,
    /// For each slot the [`generation`] in which this process registered it, or 0.
    own: Arc<[AtomicU32]>,
    weak: Weak<Self>,
}

impl Segment {
    /// Checks what is in `file`, leases and maps it.
    pub(crate) fn attach(label: Box<str>, file: Description, writable: bool) -> Result<Self> {
        let geometry = file::read_geometry(&label, &file)?;
        let is_released_by_store = geometry.release == Release::Store;
        if writable {
            if is_released_by_store {
                barrier::register().map_err(|source| Error::NoBarrier { segment: label.clone(), source })?;
            }
            Lease::Attached.lock(file.as_fd(), Mode::Shared, &label)?;
        }
        let mapping = Mapping::new(file.as_fd(), geometry.total_size, writable)
            .map_err(Error::io(&label, "map it into memory"))?;
        let segment = Self::new(label, geometry, mapping, file, writable, 0, None);
        if writable && geometry.domains > 1 {
            segment.0.domain_table()[0].join();
        }
        Ok(segment)
    }

    /// A segment that is mapped.
    pub(crate) fn new(
        label: Box<str>,
        geometry: Geometry,
        mapping: Mapping,
        file: Description,
        writable: bool,
        domain: usize,
        home: Option<Home>,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);

        let is_released_by_store = geometry.release == Release::Store;
        Self(Arc::new_cyclic(|weak| SegmentContext {
            label,
            geometry,
            mapping,
            description: Arc::new(file),
            writable,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            is_released_by_store,
            domain,
            home,
            doorbell: OnceLock::new(),
            bells: Bells::default(),
            own: core::iter::repeat_with(AtomicU32::default).take(geometry.slots).collect(),
            weak: weak.clone(),
        }))
    }

    /// How this process rings other domains, by peer and vector, and the number by which they ring this one. `ring` is called by any
    /// thread that has somebody woken; a peer that is gone is none of its errors. What it owns lives as long as the memory is mapped.
    /// Only the first one counts. Processes without one have their domain's agent ring.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn set_doorbell(&self, peer: u16, ring: impl Fn(u16, u16) + Send + Sync + 'static) -> Result<()> {
        let record = &self.context()?.domain_table()[self.0.domain];
        if self.0.doorbell.set(Box::new(ring)).is_ok() {
            record.peer.store(peer.into(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives the file, which has none yet, its name.
    pub(crate) fn publish(&self, path: &Path) -> Result<()> {
        file::publish(&self.0.label, &self.0.description, path)
    }

    /// Between the opening and the lease, somebody may have found the segment unattached and removed it.
    pub(crate) fn check_still_named(&self) -> Result<()> {
        if file::has_name(&self.0.label, &self.0.description)? {
            return Ok(());
        }
        Err(Error::NotFound { segment: self.0.label.clone() })
    }

    /// The context in which locks that lie in this segment run. For no others: a lock is named by its offset.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn context(&self) -> Result<&SegmentContext> {
        self.0.check_writable("use locks in it")?;
        Ok(&self.0)
    }

    /// As [`Segment::context`], for those who have checked that the segment is writable.
    #[inline]
    pub(crate) fn inner(&self) -> &SegmentContext {
        &self.0
    }

    /// The random identity that the segment got at its creation.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.0.geometry.uuid
    }

    /// Size of the whole segment, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.geometry.total_size
    }

    /// How many participants it has room for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.geometry.slots
    }

    /// Whether it is marked as [temporary](crate::Options::temporary).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.0.geometry.temporary
    }

    /// Whether it was opened to be looked at only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        !self.0.writable
    }

    /// Where the segment is mapped in this process; another place in every other.
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.0.mapping.bytes(0, 0).as_ptr()
    }

    /// Room for objects, in bytes, the used part included.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.0.geometry.total_size - self.0.geometry.heap
    }

    /// How much of the heap is used, in bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn heap_used(&self) -> Result<usize> {
        Ok(self.0.heap_end()? - self.0.geometry.heap)
    }

    /// A descriptor of the segment, to be passed to another process for [`Segment::from_fd`]. It shares no
    /// lease with this process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn descriptor(&self) -> Result<OwnedFd> {
        let access = if self.0.writable { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = reopen(self.0.description.as_fd().as_raw_fd(), access);
        fd.map_err(Error::io(&self.0.label, "open it again"))
    }

    /// Whether any process, this one included, has the segment attached read-write.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_attached_by_anyone(&self) -> Result<bool> {
        let probe = self.0.probe(OFlags::RDONLY)?;
        let held = Lease::Attached.is_held_by_others(probe.as_fd());
        held.map_err(Error::io(&self.0.label, "ask for its leases"))
    }
}

impl SegmentContext {
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn description(&self) -> &Arc<Description> {
        &self.description
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(crate) fn is_released_by_store(&self) -> bool {
        self.is_released_by_store
    }

    pub(crate) fn domain(&self) -> usize {
        self.domain
    }

    pub(crate) fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    pub(crate) fn bells(&self) -> &Bells {
        &self.bells
    }

    pub(crate) fn doorbell(&self) -> Option<&Doorbell> {
        self.doorbell.get().map(|doorbell| &**doorbell)
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.weak.clone()
    }

    pub(crate) fn check_writable(&self, wanted: &'static str) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly { wanted }) }
    }

    /// A description of its own, that sees the leases of this process as of any other.
    pub(crate) fn probe(&self, access: OFlags) -> Result<Description> {
        Description::reopen((*self.description).as_fd(), access, InChild::Cut)
            .map_err(Error::io(&self.label, "open it again"))
    }

    pub(crate) fn per_cpu_table(&self) -> &[PerCpu] {
        self.mapping.slice(self.geometry.per_cpu, self.geometry.slots)
    }

    pub(crate) fn records(&self) -> &[Record] {
        self.mapping.slice(self.geometry.participants, self.geometry.slots)
    }

    pub(crate) fn hash_table(&self) -> &[HashEntry] {
        self.mapping.slice(self.geometry.hash, self.geometry.hash_entries)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.mapping.slice(self.geometry.directory, self.geometry.objects)
    }

    pub(crate) fn bump(&self) -> &AtomicU64 {
        self.mapping.at(BUMP_OFFSET)
    }

    /// The seats of all slots, whether or not they have ever been used.
    #[inline]
    pub(crate) fn seat_table(&self) -> &[Seat] {
        self.mapping.slice(self.geometry.seats, self.geometry.slots)
    }

    /// One more than the highest slot that has ever been used. Peers may have written anything.
    #[inline]
    pub(crate) fn high(&self) -> &AtomicU32 {
        self.mapping.at(HIGH_OFFSET)
    }

    /// What creators of objects take where there are several domains.
    pub(crate) fn creation_lock(&self) -> &RawRobust {
        self.mapping.at(CREATION_OFFSET)
    }

    /// Where the free part of the heap begins.
    pub(crate) fn heap_end(&self) -> Result<usize> {
        let found = self.bump().load(Ordering::Relaxed);
        let range = self.geometry.heap..=self.geometry.total_size;
        usize::try_from(found)
            .ok()
            .filter(|end| range.contains(end))
            .ok_or(Error::Damaged { what: "end of the heap", found })
    }

    /// Which slots this process has registered; see the field.
    pub(crate) fn own(&self) -> &Arc<[AtomicU32]> {
        &self.own
    }

    pub(crate) fn set_own(&self, slot: CpuId) {
        self.own[slot.index()].store(generation(), Ordering::Relaxed);
    }

    pub(crate) fn clear_own(&self, slot: CpuId) {
        // Release: pairs with the Acquire of the thread that then gives the slot up.
        self.own[slot.index()].store(0, Ordering::Release);
    }
}

impl Drop for SegmentContext {
    fn drop(&mut self) {
        let generation = generation();
        for slot in (0..self.own.len()).filter_map(CpuId::new) {
            if self.own[slot.index()].load(Ordering::Relaxed) == generation {
                self.retire(slot);
            }
        }
        if self.writable {
            // Should it fail, then it ends with the description.
            let _ = Lease::Attached.unlock(self.description.as_fd());
        }
        place::leave_closed();
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for SegmentContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, geometry, writable, .. } = self;
        f.debug_struct("Segment")
            .field("label", label)
            .field("geometry", geometry)
            .field("writable", writable)
            .finish_non_exhaustive()
    }
}
