//! W1: what a lock costs that nobody else wants.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::contestant::{Contestant, Line};
use super::figure::{PAIR_NS, Sample};
use super::prng::Prng;
use super::stats::median;
use crate::interrupt::Interrupt;

/// Pairs between two looks at the clock: the clock costs nothing, and few batches meet a timer interrupt.
const BATCH: u32 = 1 << 14;

/// Locks that are taken once each: at 64 bytes each, more than most caches hold.
pub(super) const COLD_LOCKS: u32 = 1_000_000;

/// One lock, over and over: the median of many batches.
pub(super) fn hot<L: Contestant>(duration: Duration, interrupt: &Interrupt) -> Sample {
    let lock = Box::new(Line(L::new()));
    lock.0.settle();
    let start = Instant::now();
    let mut batches = Vec::new();
    loop {
        batches.push(nanoseconds_per_pair(BATCH, || take_again_and_again(&lock, BATCH)));
        if start.elapsed() >= duration || interrupt.is_raised() {
            return Sample::from([(PAIR_NS, median(batches))]);
        }
    }
}

/// A million locks, each once, in an order that no prefetcher guesses.
pub(super) fn cold<L: Contestant>() -> Sample {
    let locks: Vec<_> = (0..COLD_LOCKS).map(|_| Line(L::new())).collect();
    for lock in &locks {
        lock.0.settle();
    }
    // The same order for all.
    let order = Prng::seeded(1).permutation(COLD_LOCKS);
    let pair_ns = nanoseconds_per_pair(COLD_LOCKS, || take_each(&locks, &order));
    Sample::from([(PAIR_NS, pair_ns)])
}

fn nanoseconds_per_pair(pairs: u32, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / f64::from(pairs)
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
