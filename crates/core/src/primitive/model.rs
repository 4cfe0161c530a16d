//! Knobs for the model checkers: faults for negative controls, and a bound on spinning.
//!
//! They live below the algorithms, so that the source that is checked stays the one that ships. Each test
//! thread has its own.

use core::cell::Cell;

#[cfg(loom)]
use loom::thread as imp;
#[cfg(shuttle)]
use shuttle::thread as imp;
use std::boxed::Box;

use super::Ordering;

/// What to break. A model checker must catch each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The release of a lock word is `Relaxed` instead of `Release`.
    ReleaseIsRelaxed,
    /// A full (SeqCst) fence does nothing.
    NoFullFence,
}

std::thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static VICTIM: Cell<Option<(imp::ThreadId, u32)>> = const { Cell::new(None) };
    static SPINS: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// Breaks `fault` in this test thread from now on.
pub fn inject(fault: Fault) {
    FAULT.set(Some(fault));
}

/// Begins an execution in which the scheduler branches only until all threads together have spun for
/// `spins` turns. From then on the execution runs to its end on one schedule.
///
/// loom branches at every turn of a spin loop, and two spinners can take turns for ever.
pub fn bound_spins(spins: u32) {
    SPINS.set(spins);
}

/// What a thread of a model unwinds with when it dies; see [`die_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death;

/// The calling thread of the model dies before the atomic operation or fence that comes after `steps` more of them: it
/// unwinds with [`Death`], and writes nothing any more. Every execution has one victim at most.
pub fn die_after(steps: u32) {
    VICTIM.set(Some((imp::current().id(), steps)));
}

/// Takes the sentence of [`die_after`] back, or what is left of one from an earlier execution.
pub fn live() {
    VICTIM.set(None);
}

/// Runs what the kernel does in a system call, in which nobody dies.
pub fn in_kernel<R>(call: impl FnOnce() -> R) -> R {
    let sentence = VICTIM.get().filter(|&(victim, _)| victim == imp::current().id());
    if sentence.is_some() {
        VICTIM.set(None);
    }
    let result = call();
    if sentence.is_some() {
        VICTIM.set(sentence);
    }
    result
}

/// Comes before every atomic operation: here who is sentenced to die dies.
pub fn step() {
    if let Some((victim, steps)) = VICTIM.get()
        && imp::current().id() == victim
    {
        match steps.checked_sub(1) {
            Some(left) => VICTIM.set(Some((victim, left))),
            None => {
                VICTIM.set(None);
                std::panic::resume_unwind(Box::new(Death));
            }
        }
    }
}

pub(super) fn active(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}

pub(super) fn order(fault: Fault, order: Ordering) -> Ordering {
    if active(fault) { Ordering::Relaxed } else { order }
}

pub(super) fn spin() {
    #[cfg(loom)]
    {
        let left = SPINS.get();
        SPINS.set(left.saturating_sub(1));
        if left == 1 {
            loom::skip_branch();
        }
        loom::thread::yield_now();
    }
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}
