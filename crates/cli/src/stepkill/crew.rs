//! The others: threads of this process, which for the victim is another process.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crosslock::Segment;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::asleep::Sleeper;
use super::lock::{CrashLock, visit};

/// Sections that each of them does.
pub(super) const SECTIONS: u32 = 20;
/// Until a waiter sleeps.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one of them did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) sections: u64,
    pub(super) recoveries: u32,
    pub(super) torn: u32,
}

impl Tally {
    fn add<L: CrashLock>(&mut self, guard: &mut L::Guard<'_>) {
        let seen = visit(guard);
        self.sections += 1;
        self.recoveries += u32::from(seen.recovered);
        self.torn += u32::from(seen.torn);
    }
}

/// The threads around one victim.
pub(super) struct Crew {
    segment: Segment,
    /// Where they may run; the victim and its tracer share one CPU.
    cpus: CpuSet,
    sender: Sender<anyhow::Result<Tally>>,
    results: Receiver<anyhow::Result<Tally>>,
    threads: Vec<JoinHandle<()>>,
    /// The owner gives the lock up when this is dropped.
    hold: Option<Sender<()>>,
}

/// What has become of the threads.
pub(super) struct Collected {
    pub(super) tallies: Vec<anyhow::Result<Tally>>,
    /// How many did not come back.
    pub(super) stuck: usize,
}

impl Crew {
    pub(super) fn new(segment: &Segment, cpus: CpuSet) -> Self {
        let (sender, results) = channel();
        Self { segment: segment.clone(), cpus, sender, results, threads: Vec::new(), hold: None }
    }

    /// Starts a thread that becomes a user of the lock, says so, and does `work`; gives its number.
    fn start<L: CrashLock>(
        &mut self,
        work: impl FnOnce(&L) -> anyhow::Result<Tally> + Send + 'static,
    ) -> anyhow::Result<i32> {
        let (segment, cpus, sender) = (self.segment.clone(), self.cpus, self.sender.clone());
        let (ready, is_ready) = channel();
        let run = move || -> anyhow::Result<Tally> {
            sched_setaffinity(None, &cpus)?;
            let lock = L::open(&segment)?;
            ready.send(rustix::thread::gettid().as_raw_nonzero().get())?;
            work(&lock)
        };
        self.threads.push(std::thread::Builder::new().name("survivor".into()).spawn(move || {
            // Nobody listens any more only if this thread was given up as stuck.
            let _ = sender.send(run());
        })?);
        match is_ready.recv() {
            Ok(thread) => Ok(thread),
            Err(_) => bail!("a survivor cannot begin: {:?}", self.results.recv()?.err()),
        }
    }

    /// One who comes and works.
    pub(super) fn worker<L: CrashLock>(&mut self) -> anyhow::Result<i32> {
        self.start::<L>(|lock| {
            let mut tally = Tally::default();
            work(lock, &mut tally)?;
            Ok(tally)
        })
    }

    /// Some who come one after the other, while somebody has the lock, and sleep.
    pub(super) fn sleepers<L: CrashLock>(&mut self, count: u32) -> anyhow::Result<()> {
        let process = std::process::id().cast_signed();
        for _ in 0..count {
            let thread = self.worker::<L>()?;
            if !Sleeper::new(process, thread).wait(PATIENCE) {
                bail!("one who waits for the lock did not fall asleep within {PATIENCE:?}");
            }
        }
        Ok(())
    }

    /// One who has the lock until [`Crew::let_go`], and works after that.
    pub(super) fn owner<L: CrashLock>(&mut self) -> anyhow::Result<()> {
        let (hold, held) = channel::<()>();
        let (taken, is_taken) = channel();
        self.start::<L>(move |lock| {
            let mut tally = Tally::default();
            let mut guard = lock.lock(None)?.context("a wait without end has ended without the lock")?;
            taken.send(())?;
            // Until the other end is dropped.
            let _ = held.recv();
            tally.add::<L>(&mut guard);
            drop(guard);
            work(lock, &mut tally)?;
            Ok(tally)
        })?;
        self.hold = Some(hold);
        is_taken.recv_timeout(PATIENCE).context("a free lock was not taken")
    }

    /// The owner gives the lock up, if there is one.
    pub(super) fn let_go(&mut self) {
        self.hold = None;
    }

    /// Waits until all have done their work.
    pub(super) fn collect(&mut self, bound: Duration) -> anyhow::Result<Collected> {
        let until = Instant::now() + bound;
        let mut tallies = Vec::new();
        while tallies.len() < self.threads.len() {
            match self.results.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(tally) => tallies.push(tally),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => unreachable!("there is a sender in this very struct"),
            }
        }
        let stuck = self.threads.len() - tallies.len();
        if stuck == 0 {
            for thread in self.threads.drain(..) {
                // To its very end, when it gives its slot back.
                thread.join().ok().context("a survivor panicked")?;
            }
        }
        Ok(Collected { tallies, stuck })
    }
}

fn work<L: CrashLock>(lock: &L, tally: &mut Tally) -> anyhow::Result<()> {
    for _ in 0..SECTIONS {
        let mut guard = lock.lock(None)?.context("a wait without end has ended without the lock")?;
        tally.add::<L>(&mut guard);
    }
    Ok(())
}
