//! W1: what a lock costs that nobody else wants.

use std::hint::black_box;
use std::time::Instant;

use super::contestant::{Contestant, Line};
use super::figure::{PAIR_NS, Sample};
use super::place::{Place, Trial};
use crate::prng::Prng;
use crate::stats::median;

/// Pairs between two looks at the clock: the clock costs nothing, and few batches meet a timer interrupt.
const BATCH: u32 = 1 << 14;

/// Locks that are taken once each: at 64 bytes each, more than most caches hold.
pub(super) const COLD_LOCKS: u32 = 1_000_000;

/// One lock, over and over.
pub(super) fn hot<L: Contestant<C>, C: Place>(trial: &Trial<'_>) -> anyhow::Result<Sample> {
    let lock = Box::new(Line(L::new()));
    lock.0.settle();
    C::visit(&trial.options(1)?, |cx| {
        Ok(time_batches(trial, BATCH, || take_again_and_again(&lock, cx, BATCH)))
    })
}

/// A million locks, each once, in an order that no prefetcher guesses; and again, for until its next turn
/// comes each is cold anew.
pub(super) fn cold<L: Contestant<C>, C: Place>(trial: &Trial<'_>) -> anyhow::Result<Sample> {
    let locks: Vec<_> = (0..COLD_LOCKS).map(|_| Line(L::new())).collect();
    for lock in &locks {
        lock.0.settle();
    }
    // The same order for all.
    let order = Prng::seeded(1).permutation(COLD_LOCKS);
    C::visit(&trial.options(1)?, |cx| Ok(time_batches(trial, COLD_LOCKS, || take_each(&locks, cx, &order))))
}

/// Batch after batch until the time is over: the median of what a pair cost.
fn time_batches(trial: &Trial<'_>, pairs: u32, batch: impl Fn()) -> Sample {
    let start = Instant::now();
    let mut pair_ns = Vec::new();
    while pair_ns.is_empty() || start.elapsed() < trial.duration && !trial.interrupt.is_raised() {
        let start = Instant::now();
        batch();
        pair_ns.push(start.elapsed().as_nanos() as f64 / f64::from(pairs));
    }
    Sample::from([(PAIR_NS, median(pair_ns))])
}

/// A function of its own, so that every lock's loop starts at the same alignment, and can be found in the
/// disassembly.
#[inline(never)]
fn take_again_and_again<L: Contestant<C>, C>(lock: &Line<L>, cx: &C, pairs: u32) {
    let (lock, cx) = (black_box(lock), black_box(cx));
    for _ in 0..pairs {
        lock.0.section(cx, |_| ());
    }
}

#[inline(never)]
fn take_each<L: Contestant<C>, C>(locks: &[Line<L>], cx: &C, order: &[u32]) {
    for &index in order {
        locks[index as usize].0.section(cx, |_| ());
    }
}
