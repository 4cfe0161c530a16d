//! Time: the CPU's time stamp counter, gauged by the APIC's timer.

use core::arch::x86_64::_rdtsc;

use crosslock_core::primitive::{AtomicU64, Ordering, spin_hint};

use crate::apic;

/// Counts of the time stamp counter in a microsecond, times 1024.
static RATE: AtomicU64 = AtomicU64::new(0);

const SHIFT: u32 = 10;

/// For how long the two clocks are compared, in ticks of the APIC's timer: 20 ms.
const GAUGE: u32 = apic::TIMER_HZ / 50;

/// The time stamp counter of the running CPU. Those of two CPUs may differ.
#[inline]
pub(crate) fn cycles() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and this kernel may use it.
    unsafe { _rdtsc() }
}

/// On the first CPU, once, with interrupts off: finds the rate.
pub(crate) fn gauge() {
    apic::start_count(u32::MAX);
    let (start, from) = (cycles(), apic::count());
    let ticks = loop {
        let ticks = from.wrapping_sub(apic::count());
        if ticks >= GAUGE {
            break ticks;
        }
        spin_hint();
    };
    let cycles = cycles() - start;
    apic::start_count(0);
    RATE.store((cycles << SHIFT) * 1000 / u64::from(ticks), Ordering::Relaxed);
}

/// Counts of the time stamp counter in a millisecond.
pub(crate) fn khz() -> u64 {
    (RATE.load(Ordering::Relaxed) * 1000) >> SHIFT
}

/// Nanoseconds that `cycles` take.
pub(crate) fn ns(cycles: u64) -> u64 {
    // The rate is gauged before all else; 1 only keeps the division defined.
    u64::try_from(u128::from(cycles) * (1000 << SHIFT) / u128::from(RATE.load(Ordering::Relaxed).max(1)))
        .unwrap_or(u64::MAX)
}

/// A moment on the running CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(cycles())
    }

    /// Nanoseconds since then; 0 where the counter has gone back.
    pub(crate) fn elapsed_ns(self) -> u64 {
        ns(cycles().saturating_sub(self.0))
    }
}

/// Spins for so many microseconds.
pub(crate) fn wait_us(us: u64) {
    let start = Instant::now();
    while start.elapsed_ns() < us * 1000 {
        spin_hint();
    }
}
