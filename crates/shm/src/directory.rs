//! The directory: named objects in a segment, found by all who know their names.
//!
//! ```text
//!   state    FREE -----> CLAIMED -----> READY          changed under the registry lock alone
//!              ^            |
//!              +- creator --+
//!                 has died
//!
//!   create   entry filled, CLAIMED;  heap's end moved;  object initialised;  READY (Release)
//! ```
//! READY entries never change again, so a search takes no lock. Whoever has the registry lock and finds a
//! CLAIMED entry knows that its creator is dead, for it would hold the lock: the entry is free again, and
//! its memory too, for nothing has been allocated since.

use core::fmt;
use core::mem::offset_of;
use core::ops::Range;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::header::LINE;
use crate::mapping::SharedLayout;
use crate::registry::Creation;
use crate::segment::SegmentContext;
use crate::text::Text;

pub(crate) const FREE: u32 = 0;
pub(crate) const CLAIMED: u32 = 1;
pub(crate) const READY: u32 = 2;

const NAME_WORDS: usize = 6;
const KIND_WORDS: usize = 2;

/// Longest name of an object, in bytes.
const MAX_NAME_LEN: usize = 8 * NAME_WORDS - 1;
/// Longest name of a kind, in bytes.
pub(crate) const MAX_KIND_LEN: usize = 8 * KIND_WORDS;

/// One entry, as it lies in the segment.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) state: AtomicU32,
    align: AtomicU32,
    kind: [AtomicU64; KIND_WORDS],
    fingerprint: AtomicU64,
    offset: AtomicU64,
    size: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
}

const _: () = {
    assert!(offset_of!(Entry, align) == 4);
    assert!(offset_of!(Entry, kind) == 8);
    assert!(offset_of!(Entry, fingerprint) == 24);
    assert!(offset_of!(Entry, offset) == 32);
    assert!(offset_of!(Entry, size) == 40);
    assert!(offset_of!(Entry, name) == 48);
    assert!(size_of::<Entry>() == 96 && align_of::<Entry>() == 8);
};

// SAFETY: made of atomics.
unsafe impl SharedLayout for Entry {}

/// What an object is used as: the name of a lock algorithm for a mutex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(Text<KIND_WORDS>);

impl Kind {
    /// The kind of that name, of which 16 bytes count.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Text::truncated(name))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must agree between all who use an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectType {
    /// What it is used as.
    pub kind: Kind,
    /// [`Plain::FINGERPRINT`](crate::Plain::FINGERPRINT) of the data in it.
    pub fingerprint: u64,
    /// Bytes.
    pub size: u64,
    /// A power of two.
    pub align: u32,
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, fingerprint, size, align } = self;
        write!(f, "a {kind} of {size} bytes aligned to {align} with type fingerprint {fingerprint:#018x}")
    }
}

/// A private copy of a READY entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) name: Text<NAME_WORDS>,
    pub(crate) ty: ObjectType,
    pub(crate) offset: u64,
}

impl Entry {
    pub(crate) fn load(&self) -> Object {
        let ty = ObjectType {
            kind: Kind(Text::load(&self.kind)),
            fingerprint: self.fingerprint.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            align: self.align.load(Ordering::Relaxed),
        };
        Object { name: Text::load(&self.name), ty, offset: self.offset.load(Ordering::Relaxed) }
    }

    fn claim(&self, object: &Object) {
        object.name.store(&self.name);
        object.ty.kind.0.store(&self.kind);
        self.fingerprint.store(object.ty.fingerprint, Ordering::Relaxed);
        self.offset.store(object.offset, Ordering::Relaxed);
        self.size.store(object.ty.size, Ordering::Relaxed);
        self.align.store(object.ty.align, Ordering::Relaxed);
        // Release: who finds CLAIMED after the creator's death finds the offset, too.
        self.state.store(CLAIMED, Ordering::Release);
    }

    /// The entry if it is READY.
    pub(crate) fn ready(&self) -> Option<Object> {
        // Acquire: pairs with the Release of READY; the object is initialised.
        (self.state.load(Ordering::Acquire) == READY).then(|| self.load())
    }
}

fn checked_name(name: &str) -> Result<Text<NAME_WORDS>> {
    let reason = match name {
        "" => "it is empty",
        _ if name.len() > MAX_NAME_LEN => "it is longer than 47 bytes",
        _ if name.contains(char::is_control) => "it contains a control character",
        _ => return Ok(Text::truncated(name)),
    };
    Err(Error::InvalidName { name: name.into(), reason })
}

impl SegmentContext {
    /// The offset of the object `name`, which must be a `wanted`, if there is one.
    pub(crate) fn find(&self, name: &str, wanted: &ObjectType) -> Result<Option<usize>> {
        let text = checked_name(name)?;
        let found = self.entries().iter().filter_map(Entry::ready).find(|object| object.name == text);
        found.map(|object| self.checked_offset(name, &object, wanted)).transpose()
    }

    /// The offset of the object `name`, which must be a `wanted`; a new one is zero but for what `init` does
    /// at the offset that it is given. One of those who race here creates it, the others get the same.
    pub(crate) fn find_or_create(
        &self,
        name: &str,
        wanted: &ObjectType,
        init: impl FnOnce(usize),
    ) -> Result<usize> {
        if let Some(offset) = self.find(name, wanted)? {
            return Ok(offset);
        }
        let creation = Creation::lock(self)?;
        match self.find(name, wanted)? {
            Some(offset) => Ok(offset),
            None => self.create(&creation, checked_name(name)?, wanted, init),
        }
    }

    #[cold]
    fn create(
        &self,
        creation: &Creation<'_>,
        name: Text<NAME_WORDS>,
        wanted: &ObjectType,
        init: impl FnOnce(usize),
    ) -> Result<usize> {
        self.reclaim(creation)?;
        let is_free = |entry: &&Entry| entry.state.load(Ordering::Relaxed) != READY;
        let entry = self.entries().iter().find(is_free);
        let entry = entry.ok_or(Error::DirectoryFull { entries: self.entries().len() })?;

        let (offset, end) = self.room_for(wanted)?;
        entry.claim(&Object { name, ty: *wanted, offset: offset as u64 });
        self.bump().store(end as u64, Ordering::Relaxed);
        for word in self.mapping().slice::<AtomicU64>(offset, (end - offset) / 8) {
            word.store(0, Ordering::Relaxed);
        }
        init(offset);
        // Release: pairs with the Acquire in `ready`.
        entry.state.store(READY, Ordering::Release);
        Ok(offset)
    }

    /// Where the next object of that type would begin and end.
    fn room_for(&self, wanted: &ObjectType) -> Result<(usize, usize)> {
        let (start, total) = (self.heap_end()?, self.geometry().total_size);
        let full = || Error::HeapFull { free: (total - start) as u64, needed: wanted.size };
        let align = LINE.max(wanted.align as usize);
        let offset = start.checked_next_multiple_of(align).ok_or_else(full)?;
        let size = usize::try_from(wanted.size).ok().and_then(|size| size.checked_next_multiple_of(LINE));
        let end = size.and_then(|size| offset.checked_add(size)).filter(|&end| end <= total);
        Ok((offset, end.ok_or_else(full)?))
    }

    /// Takes back what creators that died have left.
    fn reclaim(&self, _creation: &Creation<'_>) -> Result<()> {
        for entry in self.entries().iter().filter(|entry| entry.state.load(Ordering::Acquire) == CLAIMED) {
            let left = entry.load();
            let (heap, end) = (self.geometry().heap as u64, self.heap_end()? as u64);
            let size = left.ty.size.checked_next_multiple_of(LINE as u64);
            let was_last = size.and_then(|size| left.offset.checked_add(size)) == Some(end);
            if was_last && left.offset >= heap {
                self.bump().store(left.offset, Ordering::Relaxed);
            }
            entry.state.store(FREE, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The offset of an object that was found, if it is what it should be.
    fn checked_offset(&self, name: &str, object: &Object, wanted: &ObjectType) -> Result<usize> {
        if object.ty != *wanted {
            let (found, wanted) = (Box::new(object.ty), Box::new(*wanted));
            return Err(Error::Mismatch { name: name.into(), found, wanted });
        }
        self.checked_range(object).map(|range| range.start)
    }

    /// The bytes of an object, if they are in the heap and aligned as it says.
    pub(crate) fn checked_range(&self, object: &Object) -> Result<Range<usize>> {
        let Object { ty: ObjectType { size, align, .. }, offset, .. } = *object;
        let (heap, total) = (self.geometry().heap as u64, self.geometry().total_size as u64);
        let end = size.checked_next_multiple_of(LINE as u64).and_then(|size| offset.checked_add(size));
        let is_aligned = align.is_power_of_two() && offset.is_multiple_of(u64::from(align).max(LINE as u64));
        let inside = is_aligned && offset >= heap && end.is_some_and(|end| end <= total);
        let range = inside.then(|| Some(usize::try_from(offset).ok()?..usize::try_from(offset + size).ok()?));
        range.flatten().ok_or(Error::Damaged { what: "directory entry", found: offset })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::{Options, Segment};

    const WANTED: fn() -> ObjectType =
        || ObjectType { kind: Kind::new("test"), fingerprint: 1, size: 100, align: 64 };

    fn segment() -> Segment {
        Options::new().objects(4).heap_size(1024).create_memfd("directory").unwrap()
    }

    fn word_at(segment: &Segment, offset: usize) -> &AtomicU64 {
        segment.inner().mapping().at(offset)
    }

    #[test]
    fn what_a_dead_creator_claimed_is_free_again() {
        // It died before it moved the heap's end, or after; before, or after it wrote into its object.
        for (moved, wrote) in [(false, false), (true, false), (true, true)] {
            let segment = segment();
            let context = segment.inner();
            let heap = context.geometry().heap as u64;
            let dead = Object { name: Text::truncated("x"), ty: WANTED(), offset: heap };
            context.entries()[0].claim(&dead);
            if moved {
                context.bump().store(heap + 128, Ordering::Relaxed);
            }
            if wrote {
                word_at(&segment, context.geometry().heap).store(77, Ordering::Relaxed);
            }
            assert!(segment.objects().is_empty());
            let offset = context.find_or_create("x", &WANTED(), |_| ()).unwrap();
            assert_eq!(offset as u64, heap, "the memory is used again");
            assert_eq!(word_at(&segment, offset).load(Ordering::Relaxed), 0, "and zero");
            assert_eq!(segment.heap_used().unwrap(), 128);
            assert_eq!(context.entries()[0].state.load(Ordering::Relaxed), READY);
        }
    }

    #[test]
    fn a_claim_on_what_is_not_the_end_of_the_heap_gives_nothing_back() {
        for case in 0..4 {
            let segment = segment();
            let context = segment.inner();
            let first = context.find_or_create("first", &WANTED(), |_| ()).unwrap() as u64;
            let claims = [(first, 64), (0, first + 128), (u64::MAX - 63, 64), (first, u64::MAX)];
            let (offset, size) = claims[case];
            let ty = ObjectType { size, ..WANTED() };
            context.entries()[1].claim(&Object { name: Text::truncated("x"), ty, offset });
            context.find_or_create("second", &WANTED(), |_| ()).unwrap();
            assert_eq!(segment.heap_used().unwrap(), 256, "claim at {offset} of {size}");
        }
    }

    #[test]
    fn what_a_killed_creator_left_is_repaired() {
        const DIRECTORY: &str = "CROSSLOCK_TEST_DIRECTORY";
        const SIGKILL: i32 = 9;

        if let Some(directory) = std::env::var_os(DIRECTORY) {
            let segment = Options::new().directory(directory).open("s").unwrap();
            let die = |_| {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            };
            segment.inner().find_or_create("x", &WANTED(), die).unwrap();
            unreachable!("killed while it initialised the object");
        }
        let directory = tempfile::tempdir().unwrap();
        let segment = Options::new().directory(directory.path()).create("s").unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["directory::tests::what_a_killed_creator_left_is_repaired", "--exact"])
            .env(DIRECTORY, directory.path())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGKILL));
        assert_eq!(segment.inner().entries()[0].state.load(Ordering::Relaxed), CLAIMED);
        assert_eq!(segment.heap_used().unwrap(), 128);
        segment.inner().find_or_create("y", &WANTED(), |_| ()).unwrap();
        assert_eq!(segment.heap_used().unwrap(), 128);
        assert_eq!(segment.objects().len(), 1);
    }

    #[test]
    fn a_damaged_entry_is_refused() {
        let segment = segment();
        let context = segment.inner();
        context.find_or_create("x", &WANTED(), |_| ()).unwrap();
        let (heap, total) = (context.geometry().heap as u64, segment.size() as u64);
        for offset in [0, heap - 64, heap + 1, total, total - 64, u64::MAX, u64::MAX - 63] {
            context.entries()[0].offset.store(offset, Ordering::Relaxed);
            let found = context.find("x", &WANTED());
            assert!(matches!(found, Err(Error::Damaged { found, .. }) if found == offset), "{offset}");
            assert!(segment.objects().is_empty());
        }
        context.entries()[0].offset.store(total - 128, Ordering::Relaxed);
        assert_eq!(context.find("x", &WANTED()).unwrap(), Some(segment.size() - 128));
    }

    #[test]
    fn a_damaged_end_of_the_heap_is_told() {
        let segment = segment();
        for found in [0, segment.size() as u64 + 1, u64::MAX] {
            segment.inner().bump().store(found, Ordering::Relaxed);
            assert!(matches!(segment.heap_used(), Err(Error::Damaged { .. })));
            let created = segment.inner().find_or_create("x", &WANTED(), |_| ());
            assert!(matches!(created, Err(Error::Damaged { .. })));
        }
    }
}
