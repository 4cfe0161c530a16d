//! W1: what a lock costs that nobody else wants.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::contestant::{Contestant, Line};
use super::figure::{PAIR_NS, Sample};
use crate::interrupt::Interrupt;
use crate::prng::Prng;
use crate::stats::median;

/// Pairs between two looks at the clock: the clock costs nothing, and few batches meet a timer interrupt.
const BATCH: u32 = 1 << 14;

/// Locks that are taken once each: at 64 bytes each, more than most caches hold.
pub(super) const COLD_LOCKS: u32 = 1_000_000;

/// One lock, over and over.
pub(super) fn hot<L: Contestant>(duration: Duration, interrupt: &Interrupt) -> Sample {
    let lock = Box::new(Line(L::new()));
    lock.0.settle();
    time_batches(duration, interrupt, BATCH, || take_again_and_again(&lock, BATCH))
}

/// A million locks, each once, in an order that no prefetcher guesses; and again, for until its next turn
/// comes each is cold anew.
pub(super) fn cold<L: Contestant>(duration: Duration, interrupt: &Interrupt) -> Sample {
    let locks: Vec<_> = (0..COLD_LOCKS).map(|_| Line(L::new())).collect();
    for lock in &locks {
        lock.0.settle();
    }
    // The same order for all.
    let order = Prng::seeded(1).permutation(COLD_LOCKS);
    time_batches(duration, interrupt, COLD_LOCKS, || take_each(&locks, &order))
}

/// Batch after batch until the time is over: the median of what a pair cost.
fn time_batches(duration: Duration, interrupt: &Interrupt, pairs: u32, batch: impl Fn()) -> Sample {
    let start = Instant::now();
    let mut pair_ns = Vec::new();
    while pair_ns.is_empty() || start.elapsed() < duration && !interrupt.is_raised() {
        let start = Instant::now();
        batch();
        pair_ns.push(start.elapsed().as_nanos() as f64 / f64::from(pairs));
    }
    Sample::from([(PAIR_NS, median(pair_ns))])
}

/// A function of its own, so that every lock's loop starts at the same alignment, and can be found in the
/// disassembly.
#[inline(never)]
fn take_again_and_again<L: Contestant>(lock: &Line<L>, pairs: u32) {
    let lock = black_box(lock);
    for _ in 0..pairs {
        lock.0.section(|_| ());
    }
}

#[inline(never)]
fn take_each<L: Contestant>(locks: &[Line<L>], order: &[u32]) {
    for &index in order {
        locks[index as usize].0.section(|_| ());
    }
}
