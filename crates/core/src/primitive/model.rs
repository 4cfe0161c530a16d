//! Knobs for the model checkers: faults for negative controls, and a bound on spinning.
//!
//! They live below the algorithms, so that the source that is checked stays the one that ships. Each test
//! thread has its own.

use core::cell::{Cell, RefCell};

#[cfg(loom)]
use loom::thread as imp;
#[cfg(shuttle)]
use shuttle::thread as imp;
use std::boxed::Box;
use std::vec::Vec;

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
    /// Who is to die, and after how many steps.
    static SENTENCES: RefCell<Vec<(imp::ThreadId, u32)>> = const { RefCell::new(Vec::new()) };
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
/// unwinds with [`Death`], and writes nothing any more.
pub fn die_after(steps: u32) {
    SENTENCES.with_borrow_mut(|all| all.push((imp::current().id(), steps)));
}

/// Takes the sentence of [`die_after`] back, if the calling thread has one; gives what was left of it.
pub fn live() -> Option<u32> {
    SENTENCES.with_borrow_mut(|all| {
        let me = imp::current().id();
        let place = all.iter().position(|&(victim, _)| victim == me)?;
        Some(all.swap_remove(place).1)
    })
}

/// Begins an execution in which nobody is to die yet, whatever is left of an earlier one.
pub fn all_live() {
    SENTENCES.take();
}

/// Runs what the kernel does in a system call, in which nobody dies.
pub fn in_kernel<R>(call: impl FnOnce() -> R) -> R {
    let left = live();
    let result = call();
    if let Some(steps) = left {
        die_after(steps);
    }
    result
}

/// Comes before every atomic operation: here who is sentenced to die dies.
pub fn step() {
    if SENTENCES.with_borrow(Vec::is_empty) {
        return;
    }
    if let Some(left) = live() {
        match left.checked_sub(1) {
            Some(left) => die_after(left),
            None => std::panic::resume_unwind(Box::new(Death)),
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
