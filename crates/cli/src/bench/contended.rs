//! W2, W3 and W7: what a lock is worth that several threads or processes want.
//!
//! Every point is run twice, equally long: once counting, once timing every acquisition. To time one in 64 of
//! the counted ones would save the second pass, but tell next to nothing of a lock that has collapsed to some
//! hundred acquisitions, and miss the longest wait of any; and to time all of them while counting would
//! measure the clock, which costs more than a critical section of W2.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::arena::{Arena, Load, Worker, work};
use super::contestant::Contestant;
use super::figure::{
    ACQUIRE_MAX_NS, ACQUIRE_P50_NS, ACQUIRE_P99_NS, ACQUIRE_P999_NS, CPU_NS_PER_OP, JAIN, MAX_BY_MIN,
    OPS_PER_S, Sample,
};
use super::place::{Place, Trial};
use super::probe::{Counting, Probe, Timing, histogram};
use crate::stats::{jain, max_by_min};

/// What all workers did.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) elapsed: Duration,
    pub(super) workers: Vec<Worker>,
}

/// The figures of both passes.
pub(super) fn sample(counted: &Pass, timed: &Pass) -> anyhow::Result<Sample> {
    let shares: Vec<_> = counted.workers.iter().map(|worker| worker.ops as f64).collect();
    let ops: f64 = shares.iter().sum();
    let cpu: Duration = counted.workers.iter().map(|worker| worker.cpu).sum();
    let mut waits = histogram()?;
    for worker in timed.workers.iter().filter_map(|worker| worker.waits.as_ref()) {
        waits.add(worker).context("histograms of one size add up")?;
    }
    let quantile = |quantile| waits.value_at_quantile(quantile) as f64;
    Ok(Sample::from([
        (OPS_PER_S, ops / counted.elapsed.as_secs_f64()),
        (JAIN, jain(&shares)),
        (MAX_BY_MIN, max_by_min(&shares)),
        (ACQUIRE_P50_NS, quantile(0.5)),
        (ACQUIRE_P99_NS, quantile(0.99)),
        (ACQUIRE_P999_NS, quantile(0.999)),
        (ACQUIRE_MAX_NS, waits.max() as f64),
        (CPU_NS_PER_OP, cpu.as_nanos() as f64 / ops),
    ]))
}

/// Both passes of one lock, among threads.
pub(super) fn among_threads<L: Contestant<C>, C: Place>(
    load: &Load,
    trial: &Trial<'_>,
) -> anyhow::Result<Sample> {
    C::visit(&trial.options(load.workers)?, |cx| {
        let counted = pass::<L, C, Counting>(cx, load, trial)?;
        let timed = pass::<L, C, Timing>(cx, load, trial)?;
        sample(&counted, &timed)
    })
}

fn pass<L: Contestant<C>, C: Place, P: Probe>(
    cx: &C,
    load: &Load,
    trial: &Trial<'_>,
) -> anyhow::Result<Pass> {
    let arena = Arena::<L>::around();
    arena.settle();
    thread::scope(|scope| {
        let (arena, mut workers) = (&arena, Vec::new());
        for number in 0..u32::try_from(load.workers)? {
            let worker = move || work::<L, C, P>(arena, cx, load, number);
            match thread::Builder::new().spawn_scoped(scope, worker) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    arena.stage().abandon();
                    return Err(error).context("cannot start a thread");
                }
            }
        }
        let elapsed = arena.stage().conduct(load, trial, || {
            if workers.iter().any(thread::ScopedJoinHandle::is_finished) {
                bail!("a thread ended before its time");
            }
            Ok(())
        });
        if elapsed.is_err() {
            arena.stage().abandon();
        }
        let workers = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
        let workers = workers.collect::<anyhow::Result<_>>()?;
        Ok(Pass { elapsed: elapsed?, workers })
    })
}
