//! What this CPU is doing, in one word.

use crosslock_core::primitive::{Ordering, signal_fence};

use crate::cpu;

/// A context that interrupts those before it.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Level {
    Softirq = 1 << 8,
    Hardirq = 1 << 16,
    Nmi = 1 << 20,
}

/// An interrupt between load and store leaves the word as it found it.
pub(crate) fn enter(level: Level) {
    let count = &cpu::this().preempt_count;
    count.store(count.load(Ordering::Relaxed) + level as u32, Ordering::Relaxed);
    signal_fence();
}

pub(crate) fn leave(level: Level) {
    signal_fence();
    let count = &cpu::this().preempt_count;
    count.store(count.load(Ordering::Relaxed) - level as u32, Ordering::Relaxed);
}

pub(crate) fn in_interrupt() -> bool {
    cpu::this().preempt_count.load(Ordering::Relaxed) >> 8 != 0
}

pub(crate) fn in_nmi() -> bool {
    cpu::this().preempt_count.load(Ordering::Relaxed) >> 20 != 0
}
