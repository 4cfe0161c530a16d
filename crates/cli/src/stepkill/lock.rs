//! The locks under test, behind one interface: this is the only file that knows their names.

use std::time::Duration;

use anyhow::bail;
use crosslock::Segment;
use crosslock_core::primitive::{AtomicU64, Ordering};

/// What a lock guards: two words that are equal except while somebody is inside. The first is the number of
/// sections that have begun to change them.
pub(super) type Pair = [u64; 2];

/// Name of the lock in the segment.
pub(super) const NAME: &str = "stepkill";

/// A lock whose owners may die.
pub(super) trait CrashLock: Sized + 'static {
    /// The right to the pair; given up on drop.
    type Guard<'a>: Section
    where
        Self: 'a;

    /// Creates the object `name` unless it is there.
    fn create(segment: &Segment, name: &str) -> anyhow::Result<()>;

    /// Finds the object [`NAME`], and registers the running thread, who alone is to use the result.
    fn open(segment: &Segment) -> anyhow::Result<Self>;

    /// Waits for the lock; with `patience` no longer than that, which gives `None`.
    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<Self::Guard<'_>>>;

    /// A section that only reads, next to others; a lock without readers refuses.
    fn read(&self, inside: impl FnOnce(&[AtomicU64])) -> anyhow::Result<()> {
        let _ = inside;
        bail!("this lock has no readers")
    }
}

/// A critical section.
pub(super) trait Section {
    /// Whether an owner has died inside and nobody has repaired the pair since.
    fn owner_died(&self) -> bool;

    /// The pair.
    fn words(&self) -> &[AtomicU64];

    /// The pair is repaired.
    fn mark_consistent(&mut self);
}

/// What somebody saw inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visit {
    /// The owner before has died.
    pub(super) recovered: bool,
    /// The words differed, and nobody had died.
    pub(super) torn: bool,
}

/// One critical section: repairs the pair if need be, and adds 1 to both words.
pub(super) fn visit(guard: &mut impl Section) -> Visit {
    let [first, second] = [0, 1].map(|word| guard.words()[word].load(Ordering::Relaxed));
    let recovered = guard.owner_died();
    if recovered {
        // The first word is written first: a section that was broken off counts.
        guard.words()[1].store(first, Ordering::Relaxed);
        guard.mark_consistent();
    }
    let next = first.wrapping_add(1);
    guard.words()[0].store(next, Ordering::Relaxed);
    guard.words()[1].store(next, Ordering::Relaxed);
    Visit { recovered, torn: first != second && !recovered }
}

/// Breaks a section off in the middle; for one who is about to die.
pub(super) fn half_a_visit(guard: &impl Section) {
    let first = &guard.words()[0];
    first.store(first.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
