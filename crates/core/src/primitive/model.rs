//! Knobs for the model checkers: faults for negative controls, and a bound on spinning.
//!
//! They live below the algorithms, so that the source that is checked stays the one that ships. Each test
//! thread has its own.

use core::cell::Cell;

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
