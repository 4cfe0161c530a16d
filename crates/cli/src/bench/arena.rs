//! What the workers of a contended workload share, and what each of them does: the same whether they are
//! threads or processes.
//!
//! ```text
//!   phase    ASSEMBLING ------> WARMING_UP ------> COUNTING ------> OVER
//!                all have arrived                                    each worker ends after its next section
//! ```

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use hdrhistogram::Histogram;
use rustix::thread::futex;
use rustix::time::{ClockId, clock_gettime};

use super::contestant::{Contestant, Line};
use super::place::Trial;
use super::probe::Probe;
use crate::interrupt::Interrupt;
use crate::prng::Prng;

/// The part of a pass that comes before what is counted: workers do not all start at once, and what the first
/// one does alone would outweigh all that follows where a fair lock has collapsed.
const WARM_UP: f64 = 0.25;

/// How often to look for Ctrl-C, and for workers that failed.
const ATTENTION_SPAN: Duration = Duration::from_millis(50);

/// How often to look who has arrived.
const ROLL_CALL: Duration = Duration::from_millis(1);

/// Not all workers are there.
const ASSEMBLING: u32 = 0;
/// Nothing counts yet.
const WARMING_UP: u32 = 1;
/// What is done now counts.
const COUNTING: u32 = 2;
/// The workers are to end.
const OVER: u32 = 3;

/// What the workers do, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct Load {
    #[arg(long)]
    pub(super) workers: usize,
    /// Steps of the shared generator in the critical section.
    #[arg(long)]
    pub(super) steps_inside: u32,
    /// Pauses in the critical section.
    #[arg(long)]
    pub(super) pauses_inside: u32,
    /// Steps of a worker's own generator between two critical sections, at random up to this many.
    #[arg(long)]
    pub(super) max_steps_outside: u32,
}

/// What the workers share.
#[repr(C)]
pub(super) struct Arena<L> {
    stage: Line<Stage>,
    lock: Line<L>,
}

/// How far a pass has come.
#[repr(C)]
#[derive(Default)]
pub(super) struct Stage {
    /// Every worker reads it after every section.
    phase: AtomicU32,
    arrived: AtomicU32,
}

/// What one worker did.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) ops: u64,
    pub(super) cpu: Duration,
    /// Where they were timed.
    pub(super) waits: Option<Histogram<u64>>,
}

impl<L> Arena<L> {
    /// Around a lock that is not settled yet.
    pub(super) fn around<C>() -> Self
    where
        L: Contestant<C>,
    {
        Self { stage: Line(Stage::default()), lock: Line(L::new()) }
    }

    /// As [`Contestant::settle`].
    pub(super) fn settle<C>(&self)
    where
        L: Contestant<C>,
    {
        self.lock.0.settle();
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage.0
    }
}

impl Stage {
    /// Leads the workers through a pass; gives how long the part was that counts. `check` is asked now and then
    /// whether all is well.
    pub(super) fn conduct(
        &self,
        load: &Load,
        trial: &Trial<'_>,
        mut check: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        // Acquire: pairs with the Release in `arrive`; that they have their slots is known.
        while (self.arrived.load(Ordering::Acquire) as usize) < load.workers {
            check()?;
            thread::sleep(ROLL_CALL);
        }
        self.enter(WARMING_UP);
        sleep(trial.duration.mul_f64(WARM_UP), trial.interrupt, &mut check)?;
        self.enter(COUNTING);
        // Not `duration`: the spinners may keep this thread from waking in time.
        let elapsed = sleep(trial.duration, trial.interrupt, &mut check)?;
        self.enter(OVER);
        Ok(elapsed)
    }

    /// Ends the pass, whoever has arrived.
    pub(super) fn abandon(&self) {
        self.enter(OVER);
    }

    fn enter(&self, phase: u32) {
        self.phase.store(phase, Ordering::Relaxed);
        // In the middle of a pass nobody waits for it.
        let _ = futex::wake(self.phase.as_core(), futex::Flags::empty(), i32::MAX.unsigned_abs());
    }

    /// By a worker: waits for the others.
    fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Release);
        while self.phase.load(Ordering::Relaxed) == ASSEMBLING {
            // Whatever ends the sleep, the phase is looked at again.
            let _ = futex::wait(self.phase.as_core(), futex::Flags::empty(), ASSEMBLING, None);
        }
    }
}

/// Sleeps, less if interrupted; gives how long it was.
fn sleep(
    duration: Duration,
    interrupt: &Interrupt,
    check: &mut impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        let slept = start.elapsed();
        if slept >= duration || interrupt.is_raised() {
            return Ok(slept);
        }
        check()?;
        thread::sleep((duration - slept).min(ATTENTION_SPAN));
    }
}

/// One worker, the `number`th.
#[inline(never)]
pub(super) fn work<L: Contestant<C>, C, P: Probe>(
    arena: &Arena<L>,
    cx: &C,
    load: &Load,
    number: u32,
) -> anyhow::Result<Worker> {
    let mut prng = Prng::seeded(1 + u64::from(number));
    let mut probe = P::new()?;
    let mut ops = 0;
    let mut cpu_before = None;
    // The first time it may have to be registered, and pages to be found.
    arena.lock.0.section(cx, |_| ());
    arena.stage().arrive();
    loop {
        let asked = P::now();
        let acquired = arena.lock.0.section(cx, |data| {
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
        let phase = arena.stage().phase.load(Ordering::Relaxed);
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
    Ok(Worker { ops, cpu, waits: probe.waits() })
}

/// That the running thread has used so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
