//! Interrupts on the running CPU: the interrupt controller's priority mask, so that what is more urgent than all of them, the NMI,
//! still comes where they are off. PSTATE.I, which would keep that away, too, is set from the entry of a handler until the mask
//! is, and around a wait. As Linux's pseudo-NMIs.
//!
//! The mask is written in one instruction, which takes effect before the next one (GIC architecture specification, ICC_PMR_EL1:
//! self-synchronizing). These are all memory clobbers: no access moves into or out of a section without interrupts.

use core::arch::asm;

/// Only a number lower than the mask comes through. With interrupts on: all that are used here.
const ON: u64 = 0xf0;

/// With interrupts off: the NMI.
pub(super) const OFF: u64 = 0x40;

/// Whether an interrupt ends a wait also where interrupts are off: WFI ends when one is pending, PSTATE.I or not.
pub(crate) const ENDS_WAIT_WHILE_DISABLED: bool = true;

/// Whether interrupts come.
#[inline]
pub(crate) fn are_enabled() -> bool {
    let mask: u64;
    // SAFETY: reads a register of the running CPU.
    unsafe { asm!("mrs {}, icc_pmr_el1", out(reg) mask, options(nostack, preserves_flags)) };
    mask != OFF
}

/// Keeps them away.
#[inline]
pub(crate) fn disable() {
    // SAFETY: fewer interrupts harm nobody.
    unsafe { asm!("msr icc_pmr_el1, {}", in(reg) OFF, options(nostack, preserves_flags)) };
}

/// Lets them come.
#[inline]
pub(crate) fn enable() {
    // SAFETY: the vectors are there; handlers run inside of `crosslock_kernel::hardirq`.
    unsafe { asm!("msr icc_pmr_el1, {}", in(reg) ON, options(nostack, preserves_flags)) };
}

/// Keeps interrupts away while it does `deed`.
pub(crate) fn without<T>(deed: impl FnOnce() -> T) -> T {
    let were_enabled = are_enabled();
    disable();
    let result = deed();
    if were_enabled {
        enable();
    }
    result
}

/// Lets NMIs come, and what the mask lets through.
pub(super) fn unmask() {
    // SAFETY: as in `enable`.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Keeps all interrupts away, NMIs among them.
pub(super) fn mask() {
    // SAFETY: fewer interrupts harm nobody.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
}

/// With interrupts off: turns them on, and waits for one. One that came since they are off is pending, and the wait is over at
/// once; none is taken before, since PSTATE.I is set meanwhile. The mask must let through what is to end it.
pub(crate) fn enable_and_wait() {
    mask();
    enable();
    wait_for_interrupt();
    unmask();
}

/// With interrupts off: waits until one is pending, and leaves it so.
pub(crate) fn wait() {
    mask();
    enable();
    wait_for_interrupt();
    disable();
    unmask();
}

/// Waits until an interrupt is pending that the controller lets through.
pub(super) fn wait_for_interrupt() {
    // SAFETY: waits. DSB: what was written before is on its way to who will wake this CPU.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}
