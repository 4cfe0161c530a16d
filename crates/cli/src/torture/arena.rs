//! The critical section: a failure of mutual exclusion cannot pass through it unseen, and a death inside leaves it so
//! that it can be put in order.
//!
//! ```text
//!   words   0        counter: a plain load, and later a plain store of one more
//!           1        inside: the mark of who is inside
//!           2, 3     what that one found: the counter, its own tally
//!           4        violations seen so far
//!           5        deaths of owners that the lock has told of
//!           6        whether the workers shall end
//!           8..72    eight cache lines; every word equals the counter, except while somebody is inside
//!          72..328   what each participant has added to the counter
//!         328..      for each serial number: when that worker was killed, and when the lock was had from it
//! ```
//! Two inside at once see each other in `inside`, or find the lines in disagreement, or lose an update of
//! the counter, which the sum of the participants' tallies shows. All accesses of who is inside are single atomic loads
//! and stores, `Relaxed`: a broken lock gives wrong values, not undefined behaviour.
//!
//! # Deaths
//! The stores of a visit, and of a repair, are made in the order in which they are written here, so whoever dies has made
//! the first few of them:
//! ```text
//!   visit:   found  |  inside = mark  |  lines, even ones first  |  counter  |  tally  |  inside = 0
//!   repair:                              lines, last one first               |  tally  |  inside = 0
//! ```
//! Who gets the lock after a death looks at `inside`. If it is 0, nothing is half done. Otherwise `found` is of the visit
//! that was not finished, and `counter` alone decides whether it counts: the lines are made equal to it, and the tally is the
//! one found, plus 1 if the counter has it. A repair undoes the lines from their end, so that who repairs may die, too:
//! what it leaves could have been left by the visit. Any other state has no explanation by deaths, and is a violation;
//! so is a repair of what a worker left that nobody has killed.

use crosslock_core::primitive::{AtomicU64, Ordering, signal_fence, spin_hint};

/// Participants that a torture segment has room for.
pub(crate) const PARTICIPANTS: usize = 256;

/// Serial numbers, 0 included, which is nobody's.
pub(crate) const SERIALS: usize = 2048;

const COUNTER: usize = 0;
const INSIDE: usize = 1;
const FOUND_COUNTER: usize = 2;
const FOUND_TALLY: usize = 3;
const VIOLATIONS: usize = 4;
const DEATHS: usize = 5;
const STOP: usize = 6;
const LINES: core::ops::Range<usize> = 8..72;
const TALLIES: core::ops::Range<usize> = LINES.end..LINES.end + PARTICIPANTS;
const KILLED: usize = TALLIES.end;
const RECOVERED: usize = KILLED + SERIALS;
pub(crate) const WORDS: usize = RECOVERED + SERIALS;

/// What lies in the segment.
pub(crate) type Words = [u64; WORDS];

/// Name of the mutex in the segment.
pub(crate) const NAME: &str = "torture";

/// An arena in which nobody has been.
pub(crate) const fn new() -> Words {
    [0; WORDS]
}

/// Who visits.
///
/// ```text
///   mark   63        16 15         0
///         +------------+------------+
///         |   serial   |  slot + 1  |
///         +------------+------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visitor {
    /// Of whose tally it is: no other that lives has the same.
    pub(crate) slot: usize,
    /// Of a worker that may be killed; 0 of any other.
    pub(crate) serial: usize,
}

const SERIAL_SHIFT: u32 = 16;
const SLOT_MASK: usize = (1 << SERIAL_SHIFT) - 1;
const _: () = assert!(PARTICIPANTS <= SLOT_MASK);

impl Visitor {
    fn mark(self) -> u64 {
        (self.serial << SERIAL_SHIFT | (self.slot + 1)) as u64
    }

    fn of_mark(mark: u64) -> Option<Self> {
        let mark = usize::try_from(mark).ok()?;
        let slot = (mark & SLOT_MASK).checked_sub(1).filter(|&slot| slot < PARTICIPANTS)?;
        let serial = Some(mark >> SERIAL_SHIFT).filter(|&serial| serial < SERIALS)?;
        Some(Self { slot, serial })
    }

    fn tally(self) -> usize {
        TALLIES.start + self.slot
    }
}

/// The words of the lines, in the order in which they are changed.
fn lines() -> impl DoubleEndedIterator<Item = usize> + Clone {
    LINES.step_by(2).chain(LINES.skip(1).step_by(2))
}

/// The arena, for those who hold its lock or think so, and for those who look on.
#[derive(Clone, Copy)]
pub(crate) struct Arena<'a>(&'a [AtomicU64]);

impl<'a> Arena<'a> {
    /// `words` are [`WORDS`].
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    /// A store that comes after all before it, also for those who find what a dead one left.
    fn set(&self, index: usize, value: u64) {
        #[cfg(test)]
        tests::die_perhaps();
        signal_fence();
        self.0[index].store(value, Ordering::Relaxed);
    }

    /// By the owner of the lock: one critical section, `pauses` long.
    pub(crate) fn visit(&self, me: Visitor, pauses: u32) {
        let mark = me.mark();
        let mut violations = u64::from(self.get(INSIDE) != 0);
        let (counter, tally) = (self.get(COUNTER), self.get(me.tally()));
        let next = counter.wrapping_add(1);
        self.set(FOUND_COUNTER, counter);
        self.set(FOUND_TALLY, tally);
        self.set(INSIDE, mark);
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
        self.set(me.tally(), tally.wrapping_add(1));
        violations += u64::from(self.get(INSIDE) != mark);
        self.complain(violations);
        self.set(INSIDE, 0);
    }

    /// By one who got the lock at `now_ns`, told that an owner had died: puts in order what that one left. Without a time
    /// it is nobody's recovery.
    pub(crate) fn repair(&self, now_ns: Option<u64>) {
        self.0[DEATHS].fetch_add(1, Ordering::Relaxed);
        self.put_in_order(now_ns);
    }

    /// A repair of which no lock has told.
    pub(crate) fn put_in_order(&self, now_ns: Option<u64>) {
        let mark = self.get(INSIDE);
        if mark == 0 {
            return;
        }
        let Some(dead) = Visitor::of_mark(mark) else {
            self.complain(1);
            self.set(INSIDE, 0);
            return;
        };
        if dead.serial != 0 {
            self.complain(u64::from(self.get(KILLED + dead.serial) == 0));
            if let Some(now) = now_ns.filter(|_| self.get(RECOVERED + dead.serial) == 0) {
                self.set(RECOVERED + dead.serial, now);
            }
        }
        self.complain(u64::from(!self.is_left_by(dead)));
        let counter = self.get(COUNTER);
        let made = counter.wrapping_sub(self.get(FOUND_COUNTER));
        lines().rev().for_each(|word| self.set(word, counter));
        self.set(dead.tally(), self.get(FOUND_TALLY).wrapping_add(made));
        self.set(INSIDE, 0);
    }

    /// Whether a visit of `dead` that ended at some instruction explains everything.
    fn is_left_by(&self, dead: Visitor) -> bool {
        let found = self.get(FOUND_COUNTER);
        let next = found.wrapping_add(1);
        let untouched = lines().skip_while(|&word| self.get(word) == next);
        let lines_are_done = untouched.clone().next().is_none();
        let has_counted = self.get(COUNTER) == next;
        let tallied = self.get(dead.tally()).wrapping_sub(self.get(FOUND_TALLY));
        untouched.map(|word| self.get(word)).all(|word| word == found)
            && (has_counted || self.get(COUNTER) == found)
            && (!has_counted || lines_are_done)
            && (tallied == 0 || tallied == 1 && has_counted)
    }

    /// Those who complain may be several, if they have reason.
    fn complain(&self, violations: u64) {
        if violations != 0 {
            self.0[VIOLATIONS].fetch_add(violations, Ordering::Relaxed);
        }
    }

    /// How many times exclusion was seen violated.
    pub(crate) fn violations(&self) -> u64 {
        self.get(VIOLATIONS)
    }

    /// Visits that were finished, or nearly.
    pub(crate) fn visits(&self) -> u64 {
        self.get(COUNTER)
    }

    /// Deaths of owners that the lock has told of.
    pub(crate) fn deaths(&self) -> u64 {
        self.get(DEATHS)
    }

    /// By the owner of the lock: updates of the counter that the participants have made, all together, and that it does not
    /// show.
    pub(crate) fn lost_updates(&self) -> u64 {
        let made = TALLIES.fold(0, |sum: u64, tally| sum.wrapping_add(self.get(tally)));
        made.wrapping_sub(self.get(COUNTER)).cast_signed().unsigned_abs()
    }

    /// Before a round: nobody with a serial number is there, or has been.
    pub(crate) fn begin(&self) {
        (KILLED..WORDS).for_each(|word| self.set(word, 0));
        self.set(STOP, 0);
    }

    /// The workers shall end.
    pub(crate) fn stop(&self) {
        self.set(STOP, 1);
    }

    /// Whether they shall.
    pub(crate) fn is_stopped(&self) -> bool {
        self.get(STOP) != 0
    }

    /// Noted just before the kill.
    pub(crate) fn note_kill(&self, serial: usize, now_ns: u64) {
        self.set(KILLED + serial, now_ns);
    }

    /// From the kills of owners to when the next owners ran, in nanoseconds.
    pub(crate) fn recoveries_ns(&self) -> impl Iterator<Item = u64> {
        let times = (0..SERIALS).map(|serial| (self.get(KILLED + serial), self.get(RECOVERED + serial)));
        let both = times.filter(|&(killed, recovered)| killed != 0 && recovered != 0);
        both.map(|(killed, recovered)| recovered.saturating_sub(killed))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;

    thread_local! {
        /// How many stores this thread makes before it dies.
        static STORES_TO_LIVE: Cell<Option<u32>> = const { Cell::new(None) };
    }

    pub(super) fn die_perhaps() {
        match STORES_TO_LIVE.get() {
            None => {}
            Some(0) => resume_unwind(Box::new("dead")),
            Some(left) => STORES_TO_LIVE.set(Some(left - 1)),
        }
    }

    /// Whether `body` died, which it does before its store number `stores`.
    fn dies(stores: u32, body: impl FnOnce()) -> bool {
        STORES_TO_LIVE.set(Some(stores));
        let ended = catch_unwind(AssertUnwindSafe(body));
        STORES_TO_LIVE.set(None);
        ended.is_err()
    }

    fn words() -> Vec<AtomicU64> {
        core::iter::repeat_with(|| AtomicU64::new(0)).take(WORDS).collect()
    }

    const VICTIM: Visitor = Visitor { slot: 3, serial: 7 };
    const OTHER: Visitor = Visitor { slot: 4, serial: 8 };

    /// The other one has been there, and then the victim died before its store number `stores`; whether it did.
    fn left_by_victim(words: &[AtomicU64], stores: u32) -> bool {
        let arena = Arena::new(words);
        arena.visit(OTHER, 0);
        arena.visit(VICTIM, 0);
        arena.note_kill(VICTIM.serial, 1000);
        dies(stores, || arena.visit(VICTIM, 0))
    }

    fn assert_sound(arena: Arena<'_>, of: &str) {
        arena.visit(OTHER, 0);
        assert_eq!((arena.violations(), arena.lost_updates()), (0, 0), "{of}");
    }

    #[test]
    fn any_death_is_made_good() {
        let mut stores = 0;
        loop {
            let words = words();
            if !left_by_victim(&words, stores) {
                break;
            }
            let arena = Arena::new(&words);
            arena.repair(Some(1500));
            assert_sound(arena, &format!("dead at store {stores}"));
            stores += 1;
        }
        assert_eq!(stores, 3 + 64 + 3, "every store of a visit");
    }

    #[test]
    fn who_repairs_may_die_too() {
        for stores in 0..70 {
            for repairs in 0.. {
                let words = words();
                assert!(left_by_victim(&words, stores));
                let arena = Arena::new(&words);
                let died = dies(repairs, || arena.repair(Some(1500)));
                arena.repair(Some(2000));
                assert_sound(arena, &format!("dead at store {stores}, and at {repairs} of the repair"));
                if !died {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_first_one_who_gets_the_lock_makes_the_time() {
        let words = words();
        assert!(left_by_victim(&words, 10));
        let arena = Arena::new(&words);
        assert!(dies(5, || arena.repair(Some(1500))));
        arena.repair(Some(2000));
        assert_eq!(arena.recoveries_ns().collect::<Vec<_>>(), [500]);
        assert_eq!(arena.deaths(), 2);
    }

    #[test]
    fn what_is_not_repaired_is_seen() {
        for stores in 3..70 {
            let words = words();
            assert!(left_by_victim(&words, stores));
            let arena = Arena::new(&words);
            arena.visit(OTHER, 0);
            assert!(arena.violations() > 0, "dead at store {stores}");
        }
    }

    #[test]
    fn a_lock_taken_from_the_living_is_seen() {
        let words = words();
        let arena = Arena::new(&words);
        assert!(dies(10, || arena.visit(VICTIM, 0)), "stopped, that is, and not killed");
        arena.repair(Some(1500));
        assert_eq!(arena.violations(), 1);
    }

    #[test]
    fn no_death_explains_what_an_intruder_did() {
        for stores in 4..70 {
            for word in [COUNTER, LINES.start + 1, LINES.end - 2, VICTIM.tally(), FOUND_COUNTER] {
                let words = words();
                assert!(left_by_victim(&words, stores));
                let arena = Arena::new(&words);
                arena.set(word, arena.get(word).wrapping_add(5));
                arena.repair(Some(1500));
                assert!(arena.violations() > 0, "word {word}, dead at store {stores}");
            }
        }
    }

    #[test]
    fn garbage_is_a_violation() {
        let words = words();
        let arena = Arena::new(&words);
        arena.set(INSIDE, u64::MAX);
        arena.repair(Some(1500));
        assert_eq!((arena.violations(), arena.get(INSIDE)), (1, 0));
    }
}
