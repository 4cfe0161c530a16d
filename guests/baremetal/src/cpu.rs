//! The running CPU: its number, and what belongs to it alone.

use core::arch::asm;

use crosslock_core::Event;
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_kernel::CpuState;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// As many as the kernel takes; their APIC ids are 0, 1 and so on.
pub(crate) const MAX_CPUS: usize = 8;

/// A CPU's own data. Others read the counters, and `online`.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Read through GS, so it stays the first.
    number: AtomicU32,
    online: AtomicU32,
    /// `preempt_count` and raised softirqs.
    pub(crate) state: CpuState,
    /// Is in, or about to enter, a HLT of `pv_wait`.
    pub(crate) halted: AtomicU32,
    pub(crate) events: [AtomicU64; Event::COUNT],
    pub(crate) ticks: AtomicU64,
    pub(crate) halts: AtomicU64,
    pub(crate) kicks: AtomicU64,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            number: AtomicU32::new(0),
            online: AtomicU32::new(0),
            state: CpuState::new(),
            halted: AtomicU32::new(0),
            events: [const { AtomicU64::new(0) }; Event::COUNT],
            ticks: AtomicU64::new(0),
            halts: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
        }
    }
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

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

/// All CPUs, in the order of their numbers, those that do not run among them.
pub(crate) fn all() -> &'static [Cpu; MAX_CPUS] {
    &CPUS
}

/// Makes `number` the running CPU's, and its data reachable through GS.
pub(crate) fn adopt(number: usize) -> &'static Cpu {
    let cpu = &CPUS[number];
    #[expect(clippy::cast_possible_truncation, reason = "below MAX_CPUS")]
    cpu.number.store(number as u32, Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(cpu));
    cpu
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

/// The running CPU's data.
#[inline]
pub(crate) fn this() -> &'static Cpu {
    &CPUS[number()]
}

impl Cpu {
    /// Says that it is ready for work.
    pub(crate) fn set_online(&self) {
        self.online.store(1, Ordering::Release);
    }

    /// Whether it has said so.
    pub(crate) fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire) != 0
    }
}
