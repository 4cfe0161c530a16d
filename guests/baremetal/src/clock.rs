//! Time: the architecture's counter, at a rate that is found at boot.

use crosslock_core::primitive::{AtomicU64, Ordering, spin_hint};

use crate::arch::clock;

/// Counts in a microsecond, times 1024.
static RATE: AtomicU64 = AtomicU64::new(0);

const SHIFT: u32 = 10;

/// The counter of the running CPU. Those of two CPUs may differ.
#[inline]
pub(crate) fn cycles() -> u64 {
    clock::count()
}

/// On the first CPU, once, with interrupts off: finds the rate.
pub(crate) fn gauge() {
    let (counts, ns) = clock::gauge();
    RATE.store((counts << SHIFT) * 1000 / ns, Ordering::Relaxed);
}

/// Counts in a millisecond.
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
