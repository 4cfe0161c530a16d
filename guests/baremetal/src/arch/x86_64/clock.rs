//! The time stamp counter, gauged by the APIC's timer.

use core::arch::x86_64::_rdtsc;

use crosslock_core::primitive::spin_hint;

use super::apic;

/// For how long the two clocks are compared, in ticks of the APIC's timer: 20 ms.
const GAUGE: u32 = apic::TIMER_HZ / 50;

/// The time stamp counter of the running CPU. Those of two CPUs may differ.
#[inline]
pub(crate) fn count() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and this kernel may use it.
    unsafe { _rdtsc() }
}

/// On the first CPU, once, with interrupts off: so many counts are so many nanoseconds.
pub(crate) fn gauge() -> (u64, u64) {
    apic::enable();
    apic::start_count(u32::MAX);
    let (start, from) = (count(), apic::count());
    let ticks = loop {
        let ticks = from.wrapping_sub(apic::count());
        if ticks >= GAUGE {
            break ticks;
        }
        spin_hint();
    };
    let counts = count() - start;
    apic::start_count(0);
    (counts, u64::from(ticks) * 1_000_000_000 / u64::from(apic::TIMER_HZ))
}
