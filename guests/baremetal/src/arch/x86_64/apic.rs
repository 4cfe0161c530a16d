//! The running CPU's local APIC, by its x2APIC registers (MSRs) where the CPU has them, else by its xAPIC ones (memory).
//!
//! Intel SDM volume 3, chapter 11. The timer counts at 1 GHz in QEMU and in KVM, whatever the CPU.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

use super::hypervisor;
use super::interrupts::{SPURIOUS, vector};
use crate::interrupts::Irq;

const XAPIC_BASE: usize = 0xfee0_0000;
const X2APIC_BASE: u32 = 0x800;

const BASE_MSR: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

/// Ticks of the timer in a second.
pub(super) const TIMER_HZ: u32 = 1_000_000_000;

/// A register, by its offset in xAPIC memory divided by 16, which is its number in x2APIC.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Register {
    Tpr = 0x08,
    Eoi = 0x0b,
    Spurious = 0x0f,
    Esr = 0x28,
    Icr = 0x30,
    IcrHigh = 0x31,
    Timer = 0x32,
    InitialCount = 0x38,
    CurrentCount = 0x39,
    Divide = 0x3e,
}

const SPURIOUS_ENABLE: u32 = 1 << 8;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

const ICR_NMI: u32 = 4 << 8;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_ALL_BUT_SELF: u32 = 3 << 18;

/// 1 where all CPUs use x2APIC registers.
static X2APIC: AtomicU32 = AtomicU32::new(0);

fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed) != 0
}

/// On the first CPU, before all else here: which registers to use.
pub(super) fn choose() {
    X2APIC.store(u32::from(hypervisor::has_x2apic()), Ordering::Relaxed);
}

fn write(register: Register, value: u32) {
    if is_x2apic() {
        // SAFETY: a register of the APIC in the mode that it is in; none of those here can harm memory.
        unsafe { Msr::new(X2APIC_BASE + register as u32).write(value.into()) };
    } else {
        let at = with_exposed_provenance_mut::<u32>(XAPIC_BASE + ((register as usize) << 4));
        // SAFETY: the APIC's page, mapped uncached, this register's 32 bits.
        unsafe { at.write_volatile(value) };
    }
}

fn read(register: Register) -> u32 {
    if is_x2apic() {
        // SAFETY: as in `write`. The upper half is that of the ICR alone.
        #[expect(clippy::cast_possible_truncation, reason = "32-bit registers")]
        return unsafe { Msr::new(X2APIC_BASE + register as u32).read() as u32 };
    }
    let at = with_exposed_provenance::<u32>(XAPIC_BASE + ((register as usize) << 4));
    // SAFETY: as in `write`.
    unsafe { at.read_volatile() }
}

/// Turns the running CPU's APIC on, with its timer off.
pub(super) fn enable() {
    let mut base = Msr::new(BASE_MSR);
    // SAFETY: reads where the APIC is.
    let found = unsafe { base.read() };
    let mode = if is_x2apic() { BASE_ENABLE | BASE_X2APIC } else { BASE_ENABLE };
    // SAFETY: turns it on where it is; interrupts are off.
    unsafe { base.write(found | mode) };
    write(Register::Tpr, 0);
    write(Register::Timer, TIMER_MASKED);
    write(Register::Divide, DIVIDE_BY_1);
    write(Register::Spurious, SPURIOUS_ENABLE | u32::from(SPURIOUS));
    write(Register::Esr, 0);
}

/// The interrupt in service is done with.
pub(super) fn end_of_interrupt() {
    write(Register::Eoi, 0);
}

/// Interrupts this CPU `hz` times a second from now on; never, if 0.
pub(crate) fn start_timer(hz: u32) {
    match TIMER_HZ.checked_div(hz) {
        Some(count) => {
            write(Register::Timer, TIMER_PERIODIC | u32::from(vector(Irq::Timer)));
            write(Register::InitialCount, count);
        }
        None => {
            write(Register::Timer, TIMER_MASKED);
            write(Register::InitialCount, 0);
        }
    }
}

/// Lets the timer run without interrupts, from a count of `from` downwards.
pub(super) fn start_count(from: u32) {
    write(Register::Timer, TIMER_MASKED);
    write(Register::InitialCount, from);
}

/// Where the count is.
pub(super) fn count() -> u32 {
    read(Register::CurrentCount)
}

/// Interrupts `cpu`.
pub(crate) fn send(cpu: usize, irq: Irq) {
    command(cpu, ICR_ASSERT | u32::from(vector(irq)));
}

/// Interrupts `cpu`, whether it wants to be or not.
pub(crate) fn send_nmi(cpu: usize) {
    command(cpu, ICR_ASSERT | ICR_NMI);
}

/// Starts all others at the trampoline. `wait` waits for so many microseconds.
pub(super) fn start_others(trampoline: usize, wait: impl Fn(u64)) {
    let page = u32::try_from(trampoline >> 12).unwrap_or(0) & 0xff;
    command(0, ICR_ALL_BUT_SELF | ICR_ASSERT | ICR_INIT);
    wait(10_000);
    // Twice, as the multiprocessor specification has it; a CPU that runs already does not mind.
    for _ in 0..2 {
        command(0, ICR_ALL_BUT_SELF | ICR_ASSERT | ICR_STARTUP | page);
        wait(200);
    }
}

/// An interrupt between the two halves of xAPIC's command would send half of it elsewhere, so there is none.
fn command(cpu: usize, command: u32) {
    #[expect(clippy::cast_possible_truncation, reason = "a CPU's number")]
    let cpu = cpu as u32;
    if is_x2apic() {
        // The write is not ordered after earlier stores, which the receiver must see.
        x86_64_fence();
        // SAFETY: sends an interrupt, in one write.
        unsafe {
            Msr::new(X2APIC_BASE + Register::Icr as u32).write(u64::from(cpu) << 32 | u64::from(command))
        };
    } else {
        without_interrupts(|| {
            write(Register::IcrHigh, cpu << 24);
            write(Register::Icr, command);
            while read(Register::Icr) & ICR_PENDING != 0 {
                spin_hint();
            }
        });
    }
}

fn x86_64_fence() {
    // SAFETY: fences only. Intel SDM 11.12.3: MFENCE; LFENCE before a write of the ICR's MSR.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}
