//! W2, W3 and W7: what a lock is worth that several threads want.
//!
//! Every point is run twice, equally long: once counting, once timing every acquisition. To time one in 64 of
//! the counted ones would save the second pass, but tell next to nothing of a lock that has collapsed to some
//! hundred acquisitions, and miss the longest wait of any; and to time all of them while counting would
//! measure the clock, which costs more than a critical section of W2.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::contestant::{Contestant, Line};
use super::figure::{
    ACQUIRE_MAX_NS, ACQUIRE_P50_NS, ACQUIRE_P99_NS, ACQUIRE_P999_NS, CPU_NS_PER_OP, JAIN, MAX_BY_MIN,
    OPS_PER_S, Sample,
};
use crate::interrupt::Interrupt;
use crate::prng::Prng;
use crate::stats::{jain, max_by_min};

/// What the threads do, and how many they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) threads: usize,
    /// Steps of the shared generator in the critical section.
    pub(super) steps_inside: u32,
    /// Pauses in the critical section.
    pub(super) pauses_inside: u32,
    /// Steps of a thread's own generator between two critical sections, at random up to this many.
    pub(super) max_steps_outside: u32,
}

/// How often to look for Ctrl-C.
const ATTENTION_SPAN: Duration = Duration::from_millis(50);

/// The part of a pass that comes before what is counted: threads do not all start at once, and what the first
/// one does alone would outweigh all that follows where a fair lock has collapsed.
const WARM_UP: f64 = 0.25;

/// Longer waits than this count as this.
const LONGEST: Duration = Duration::from_secs(100);

/// Both passes of one lock.
pub(super) fn run<L: Contestant>(
    load: &Load,
    duration: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Sample> {
    let counted = pass::<L, Counting>(load, duration, interrupt)?;
    let timed = pass::<L, Timing>(load, duration, interrupt)?;

    let shares: Vec<_> = counted.workers.iter().map(|worker| worker.ops as f64).collect();
    let ops: f64 = shares.iter().sum();
    let cpu: Duration = counted.workers.iter().map(|worker| worker.cpu).sum();
    let mut waits = Timing::new()?.0;
    for worker in &timed.workers {
        waits.add(&worker.probe.0).context("histograms of one size add up")?;
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

/// What is looked at in a pass.
trait Probe: Sized + Send {
    /// A moment, if this probe looks at the clock.
    type Moment;

    fn new() -> anyhow::Result<Self>;
    fn now() -> Self::Moment;
    fn record(&mut self, asked: Self::Moment, acquired: Self::Moment);
}

/// Nothing but the number of acquisitions.
struct Counting;

impl Probe for Counting {
    type Moment = ();

    fn new() -> anyhow::Result<Self> {
        Ok(Self)
    }

    #[inline]
    fn now() {}

    #[inline]
    fn record(&mut self, (): (), (): ()) {}
}

/// How long each acquisition took, in nanoseconds.
struct Timing(Histogram<u64>);

impl Probe for Timing {
    type Moment = Instant;

    fn new() -> anyhow::Result<Self> {
        // Bounded, so that none grows while it is measured.
        let longest = u64::try_from(LONGEST.as_nanos())?;
        Ok(Self(Histogram::new_with_bounds(1, longest, 3)?))
    }

    #[inline]
    fn now() -> Instant {
        Instant::now()
    }

    #[inline]
    fn record(&mut self, asked: Instant, acquired: Instant) {
        let wait = acquired.duration_since(asked).min(LONGEST);
        self.0.saturating_record(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Nothing counts yet.
const WARMING_UP: u32 = 0;
/// What is done now counts.
const COUNTING: u32 = 1;
/// The workers are to end.
const OVER: u32 = 2;

/// What the workers share.
struct Arena<L> {
    lock: Line<L>,
    phase: Line<AtomicU32>,
    start: Barrier,
}

/// What one worker did.
struct Worker<P> {
    ops: u64,
    cpu: Duration,
    probe: P,
}

/// What all workers did.
struct Pass<P> {
    elapsed: Duration,
    workers: Vec<Worker<P>>,
}

fn pass<L: Contestant, P: Probe>(
    load: &Load,
    duration: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Pass<P>> {
    let arena = Arena {
        lock: Line(L::new()),
        phase: Line(AtomicU32::new(WARMING_UP)),
        start: Barrier::new(load.threads + 1),
    };
    arena.lock.0.settle();
    let probes = (0..load.threads).map(|_| P::new()).collect::<anyhow::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let arena = &arena;
        let worker = |(index, probe)| {
            let prng = Prng::seeded(1 + index as u64);
            scope.spawn(move || work(arena, load, prng, probe))
        };
        let workers: Vec<_> = probes.into_iter().enumerate().map(worker).collect();

        arena.start.wait();
        sleep(duration.mul_f64(WARM_UP), interrupt);
        arena.phase.0.store(COUNTING, Ordering::Relaxed);
        // Not `duration`: the spinners may keep this thread from waking in time.
        let elapsed = sleep(duration, interrupt);
        arena.phase.0.store(OVER, Ordering::Relaxed);

        let workers = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
        Ok(Pass { elapsed, workers: workers.collect() })
    })
}

/// Sleeps, less if interrupted; gives how long it was.
fn sleep(duration: Duration, interrupt: &Interrupt) -> Duration {
    let start = Instant::now();
    loop {
        let slept = start.elapsed();
        if slept >= duration || interrupt.is_raised() {
            return slept;
        }
        thread::sleep((duration - slept).min(ATTENTION_SPAN));
    }
}

#[inline(never)]
fn work<L: Contestant, P: Probe>(arena: &Arena<L>, load: &Load, mut prng: Prng, mut probe: P) -> Worker<P> {
    let mut ops = 0;
    let mut cpu_before = None;
    arena.start.wait();
    loop {
        let asked = P::now();
        let acquired = arena.lock.0.section(|data| {
            let acquired = P::now();
            for _ in 0..load.steps_inside {
                data.step();
            }
            for _ in 0..load.pauses_inside {
                spin_hint();
            }
            acquired
        });
        // After every acquisition: at the end, each waiter of a fair lock gets its turn, and no more.
        let phase = arena.phase.0.load(Ordering::Relaxed);
        if phase != WARMING_UP {
            cpu_before.get_or_insert_with(cpu_time);
            // Also the last one, which does not count: to leave out who waits at the end would leave out
            // long waits.
            probe.record(asked, acquired);
            if phase == OVER {
                break;
            }
            ops += 1;
        }
        if load.max_steps_outside > 0 {
            for _ in 0..prng.below(u64::from(load.max_steps_outside) + 1) {
                prng.step();
            }
        }
    }
    black_box(prng);
    let cpu = cpu_before.map_or(Duration::ZERO, |before| cpu_time().saturating_sub(before));
    Worker { ops, cpu, probe }
}

/// That the running thread has used so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
