//! Every change of a lock word that a model checker has seen, to be compared with the state diagram.

use core::cell::RefCell;
use std::collections::BTreeSet;

use crate::qspinlock::QWord;

/// A change of the lock word, with tails reduced to `0`, `n` and (another) `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition(&'static str, bool, u32, &'static str, bool, u32);

impl core::fmt::Display for Transition {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(tail, pending, locked, new_tail, new_pending, new_locked) = *self;
        let (pending, new_pending) = (u8::from(pending), u8::from(new_pending));
        write!(f, "{tail},{pending},{locked} -> {new_tail},{new_pending},{new_locked}")
    }
}

std::thread_local! {
    static SEEN: RefCell<BTreeSet<Transition>> = const { RefCell::new(BTreeSet::new()) };
}

pub(crate) fn record(from: QWord, to: QWord) {
    let same_tail = (from.bits() ^ to.bits()) >> 16 == 0;
    let old = if from.has_tail() { "n" } else { "0" };
    let new = match (to.has_tail(), same_tail || old == "0") {
        (false, _) => "0",
        (true, true) => "n",
        (true, false) => "m",
    };
    let transition = Transition(old, from.pending(), from.locked(), new, to.pending(), to.locked());
    SEEN.with_borrow_mut(|seen| seen.insert(transition));
}

/// The transitions that this test thread has recorded since its last call.
#[must_use]
pub fn take() -> BTreeSet<String> {
    let seen = SEEN.take();
    seen.iter().map(Transition::to_string).collect()
}
