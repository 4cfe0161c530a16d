//! What the kernel layers keep for each CPU.

use crosslock_core::primitive::{AtomicU32, Ordering};

use crate::debug::HeldLocks;
use crate::preempt_count::PreemptCount;

/// The kernel layers' state of one CPU: written by that CPU alone. It begins with the word of
/// [`PreemptCount`].
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct CpuState {
    pub(crate) count: PreemptCount,
    softirqs: AtomicU32,
    pub(crate) held: HeldLocks,
}

impl CpuState {
    /// Of a CPU that runs a task, with nothing disabled.
    #[must_use]
    pub const fn new() -> Self {
        Self { count: PreemptCount::new(), softirqs: AtomicU32::new(0), held: HeldLocks::new() }
    }

    /// The CPU's `preempt_count`.
    #[inline]
    #[must_use]
    pub const fn preempt_count(&self) -> &PreemptCount {
        &self.count
    }

    /// The softirqs that are raised and have not run yet, one bit each.
    #[inline]
    #[must_use]
    pub fn pending_softirqs(&self) -> u32 {
        self.softirqs.load(Ordering::Relaxed)
    }

    /// One that raises a softirq may have been interrupted by another, non-maskable interrupts included.
    pub(crate) fn raise(&self, softirqs: u32) {
        self.softirqs.fetch_or(softirqs, Ordering::Relaxed);
    }

    pub(crate) fn take_softirqs(&self) -> u32 {
        self.softirqs.swap(0, Ordering::Relaxed)
    }
}
