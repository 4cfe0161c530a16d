//! The running CPU, by what GS points to.

use core::arch::asm;
use core::mem::offset_of;

use crosslock_core::primitive::AtomicU64;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::descriptors;
use crate::cpu::Cpu;

const _: () = assert!(offset_of!(Cpu, number) == 0);

/// Makes `cpu` the running CPU's data, which begins with its number.
///
/// # Panics
/// It has been.
pub(crate) fn adopt(number: usize, cpu: &'static Cpu) {
    GsBase::write(VirtAddr::from_ptr(cpu));
    descriptors::load(number);
}

/// The running CPU's number.
#[inline]
pub(crate) fn number() -> usize {
    let number: u32;
    // SAFETY: `adopt` has pointed GS at this CPU's data, which begins with its number and is never moved.
    unsafe {
        asm!("mov {0:e}, dword ptr gs:[0]", out(reg) number, options(nostack, preserves_flags, readonly, pure));
    }
    number as usize
}

/// Adds to a counter that only this CPU writes. An interrupt between load and store would lose its own addition, so the
/// addition is one instruction; it needs no lock prefix.
#[inline]
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    let counter: *const AtomicU64 = counter;
    // SAFETY: the address is that of a live, aligned 64-bit word, which only this CPU writes, so the instruction need
    // not be atomic towards other CPUs; those see either value.
    unsafe {
        asm!("add qword ptr [{0}], {1}", in(reg) counter, in(reg) amount, options(nostack));
    }
}
