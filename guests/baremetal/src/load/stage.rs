//! CPUs that take a lock at the same time.

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_kernel::ArchSpinLock;

use super::form::Rival;
use super::subject::Section;
use super::{GRACE_MS, Load, SECTIONS_PER_INTERRUPT};
use crate::arch::interrupts;
use crate::clock::Instant;
use crate::cpu::MAX_CPUS;
use crate::interrupts::Irq;
use crate::platform::Kernel;
use crate::{scene, watchdog};

/// CPUs that take part. The first always does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Team {
    /// So many.
    All(usize),
    /// The first and this one; the others are halted.
    Pair(usize),
}

impl Team {
    /// The last one's number and one.
    fn end(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Pair(other) => other + 1,
        }
    }

    fn has(self, number: usize) -> bool {
        match self {
            Self::All(count) => number < count,
            Self::Pair(other) => number == 0 || number == other,
        }
    }

    /// Who is interrupted by this one.
    fn after(self, number: usize) -> usize {
        match self {
            Self::All(count) => (number + 1) % count,
            Self::Pair(other) => other - number,
        }
    }
}

/// When CPUs stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// Each after so many sections of its tasks.
    pub(super) each: u64,
    /// All after so many milliseconds of the first one.
    pub(super) ms: u32,
    /// So many milliseconds before that do not count: fair locks are fast until each CPU has been preempted once.
    pub(super) warm_up_ms: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Sections of each CPU's tasks, without those while warming up.
    pub(super) sections: [u64; MAX_CPUS],
    /// For so many nanoseconds.
    pub(super) ns: u64,
}

/// Has each CPU of `team` take the lock again and again, with timer interrupts.
pub(super) fn play<L: ArchSpinLock<Kernel<L>> + 'static>(
    load: &Load<L>,
    team: Team,
    until: Until,
    hz: u32,
) -> Counts {
    let [done, before] = [const { [const { AtomicU64::new(0) }; MAX_CPUS] }; 2];
    let stop = AtomicU32::new(0);
    let ns = AtomicU64::new(0);
    let [warm_up, end] = [until.warm_up_ms, until.warm_up_ms + until.ms].map(|ms| u64::from(ms) * 1_000_000);
    watchdog::set(u64::from(until.warm_up_ms + until.ms) + GRACE_MS);
    scene::play(load, team.end(), &|number| {
        if !team.has(number) {
            return;
        }
        if number != 0 {
            interrupts::start_timer(hz);
        }
        let start = Instant::now();
        let mut from = (warm_up == 0).then_some(0);
        let (mut count, mut violations, mut written) = (0, 0, 0);
        loop {
            if count >= until.each || stop.load(Ordering::Relaxed) != 0 {
                break;
            }
            if number == 0 {
                let now = start.elapsed_ns();
                if from.is_none() && now >= warm_up {
                    from = Some(now);
                    for (before, done) in before.iter().zip(&done) {
                        before.store(done.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                }
                if now >= end {
                    stop.store(1, Ordering::Relaxed);
                    break;
                }
            }
            let Section { right, wrote } = load.subject.task(count);
            count += 1;
            done[number].store(count, Ordering::Relaxed);
            violations += u64::from(!right);
            written += u64::from(wrote);
            if load.rival != Rival::Nobody && count % SECTIONS_PER_INTERRUPT == 0 {
                interrupts::send(team.after(number), Irq::Low);
            }
        }
        if number == 0 {
            ns.store(start.elapsed_ns() - from.unwrap_or(0), Ordering::Relaxed);
        }
        load.add(violations, written);
        // The first CPU's goes on for the watchdog.
        if number != 0 {
            interrupts::start_timer(0);
        }
    });
    watchdog::set(0);
    let counted =
        |number: usize| done[number].load(Ordering::Relaxed) - before[number].load(Ordering::Relaxed);
    Counts { sections: core::array::from_fn(counted), ns: ns.load(Ordering::Relaxed) }
}
