//! The running CPU: its number, and what belongs to it alone.

use crosslock_core::Event;
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_kernel::CpuState;

use crate::arch;
pub(crate) use crate::arch::cpu::{add, number};

/// As many as the kernel takes. Their numbers are those that the machine gives them: APIC ids, affinities.
pub(crate) const MAX_CPUS: usize = 8;

/// A CPU's own data. Others read the counters, and `online`.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Read by the architecture, so it stays the first.
    pub(crate) number: AtomicU32,
    online: AtomicU32,
    /// `preempt_count` and raised softirqs.
    pub(crate) state: CpuState,
    /// Is, or is about to be, suspended by `pv_wait`.
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

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

/// All CPUs, in the order of their numbers, those that do not run among them.
pub(crate) fn all() -> &'static [Cpu; MAX_CPUS] {
    &CPUS
}

/// Makes `number` the running CPU's number.
///
/// # Panics
/// It is another one's.
pub(crate) fn adopt(number: usize) -> &'static Cpu {
    let cpu = &CPUS[number];
    #[expect(clippy::cast_possible_truncation, reason = "below MAX_CPUS")]
    cpu.number.store(number as u32, Ordering::Relaxed);
    arch::cpu::adopt(number, cpu);
    cpu
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
