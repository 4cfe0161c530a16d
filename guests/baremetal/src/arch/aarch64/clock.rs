//! The generic timer's virtual count, which is the same on all CPUs.

use core::arch::asm;

use arm_sysregs::el0::accessors::{read_cntfrq_el0, read_cntvct_el0};

/// The count now.
#[inline]
pub(crate) fn count() -> u64 {
    // SAFETY: a barrier, without which the count may be read before what stands before this.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
    read_cntvct_el0().virtualcount()
}

/// So many counts are so many nanoseconds: the machine says it.
pub(crate) fn gauge() -> (u64, u64) {
    (u64::from(read_cntfrq_el0().clockfreq()), 1_000_000_000)
}
