//! The running CPU, by its thread register.

use core::arch::asm;

use crosslock_core::primitive::{AtomicU64, Ordering};

use crate::cpu::Cpu;

/// Makes `number` the running CPU's.
pub(crate) fn adopt(number: usize, _cpu: &'static Cpu) {
    // SAFETY: nobody else uses the register.
    unsafe { asm!("msr tpidr_el1, {}", in(reg) number, options(nostack, preserves_flags)) };
}

/// The running CPU's number.
#[inline]
pub(crate) fn number() -> usize {
    let number;
    // SAFETY: reads what `adopt` has put there before all else.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    number
}

/// Adds to a counter that only this CPU writes. An interrupt between load and store would lose its own addition, so the
/// addition is atomic; there is no cheaper one instruction for it.
#[inline]
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
