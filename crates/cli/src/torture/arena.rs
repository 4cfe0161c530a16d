//! The critical section: a failure of mutual exclusion cannot pass through it unseen.
//!
//! ```text
//!   words   0        counter: a plain load, and later a plain store of one more
//!           1        inside: the number of the worker that is inside, plus 1
//!           8..72    eight cache lines; every word equals the counter, except while somebody is inside
//!          72..      what each participant has added to the counter
//! ```
//! Two inside at once see each other in `inside`, or find the lines in disagreement, or lose an update of
//! the counter, which the sum of the participants' tallies shows. All accesses are single atomic loads and
//! stores, `Relaxed`: a broken lock gives wrong values, not undefined behaviour.

use crosslock::{SegmentContext, SpinGuard};
use crosslock_core::RawLock;
use crosslock_core::primitive::{AtomicU64, Ordering, spin_hint};

/// Participants that a torture segment has room for.
pub(crate) const PARTICIPANTS: usize = 256;

const COUNTER: usize = 0;
const INSIDE: usize = 1;
const LINES: core::ops::Range<usize> = 8..72;
const TALLIES: usize = LINES.end;
const WORDS: usize = TALLIES + PARTICIPANTS;

/// What lies in the segment.
pub(crate) type Words = [u64; WORDS];

/// Name of the mutex in the segment.
pub(crate) const NAME: &str = "torture";

/// An arena in which nobody has been.
pub(crate) const fn new() -> Words {
    [0; WORDS]
}

/// The arena, seen by one who holds its lock, or thinks so.
pub(crate) struct Inside<'a>(&'a [AtomicU64]);

impl<'a> Inside<'a> {
    pub(crate) fn new<L: RawLock<SegmentContext>>(guard: &'a SpinGuard<'_, Words, L>) -> Self {
        Self(guard.words())
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    fn set(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Relaxed);
    }

    /// One critical section of participant `me`, `pauses` long; how many times exclusion was seen violated.
    pub(crate) fn visit(&self, me: usize, pauses: u32) -> u64 {
        let my_mark = me as u64 + 1;
        let mut violations = u64::from(self.get(INSIDE) != 0);
        self.set(INSIDE, my_mark);
        let counter = self.get(COUNTER);
        let next = counter.wrapping_add(1);
        violations += u64::from(LINES.into_iter().any(|word| self.get(word) != counter));
        for word in LINES.step_by(2) {
            self.set(word, next);
        }
        for _ in 0..pauses {
            spin_hint();
        }
        for word in LINES.skip(1).step_by(2) {
            self.set(word, next);
        }
        self.set(COUNTER, next);
        self.set(TALLIES + me, self.get(TALLIES + me).wrapping_add(1));
        violations += u64::from(self.get(INSIDE) != my_mark);
        self.set(INSIDE, 0);
        violations
    }

    /// Updates of the counter that the participants have made, all together, and that it does not show.
    pub(crate) fn lost_updates(&self) -> u64 {
        let made = (TALLIES..WORDS).fold(0, |sum: u64, tally| sum.wrapping_add(self.get(tally)));
        made.wrapping_sub(self.get(COUNTER)).cast_signed().unsigned_abs()
    }
}
