//! The process that has workers, and kills them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crosslock::{Liveness, Segment};
use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::Rate;
use crate::interrupt::Interrupt;
use crate::prng::Prng;
use crate::torture::arena::SERIALS;
use crate::torture::lock::with_subject;
use crate::torture::processes::WorkerArgs;
use crate::torture::pthread::PthreadMutex;
use crate::torture::subject::Subject;
use crate::torture::worker::{self, Load, monotonic_ns};

/// How long one lock is tortured before it is the other's turn.
const TURN: Duration = Duration::from_secs(1);

/// How long the herd does nothing after a kill, if it has the time.
const REST: Duration = Duration::from_millis(3);

/// How long after its turn a worker may come back, before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happened under one lock.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) duration: Duration,
    pub(super) kills: u64,
    /// Visits of the arena.
    pub(super) acquisitions: u64,
    pub(super) violations: u64,
    pub(super) lost_updates: u64,
    /// Deaths that the lock told of.
    pub(super) deaths: u64,
    pub(super) stuck: usize,
    /// Whether the lock was free at the end.
    pub(super) is_free: bool,
    pub(super) recovery: Recovery,
}

/// From the kill of an owner until the next one ran, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Recovery {
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Recovery {
    fn of(times: &Histogram<u64>) -> Self {
        Self {
            count: times.len(),
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            max: times.max(),
        }
    }
}

/// What a herd tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HerdReport {
    pub(super) subject: Outcome,
    pub(super) pthread: Option<Outcome>,
    /// Participants that are still there, though their processes are gone.
    pub(super) leaked_slots: usize,
}

/// Does the work of a herd, in a process that has no other thread.
pub(crate) fn run_herd(
    args: &WorkerArgs,
    rate: Rate,
    segment: &Segment,
    interrupt: &Interrupt,
) -> anyhow::Result<HerdReport> {
    with_subject!(args.lock, S => {
        let mut subject = Herd::<S>::new(args, rate, segment)?;
        let mut pthread = match args.lock {
            Lock::Robust => Some(Herd::<PthreadMutex>::new(args, rate, segment)?),
            _ => None,
        };
        let mut left = args.duration;
        while !left.is_zero() && !interrupt.is_raised() && !subject.is_stuck {
            let turn = left.min(TURN);
            left -= turn;
            subject.take_turn(turn, interrupt)?;
            if let Some(pthread) = &mut pthread {
                pthread.take_turn(turn, interrupt)?;
                if pthread.is_stuck {
                    pthread.renew()?;
                }
            }
        }
        Ok(HerdReport {
            subject: subject.outcome()?,
            pthread: pthread.map(Herd::outcome).transpose()?,
            leaked_slots: leaked_slots(segment)?,
        })
    })
}

/// When all workers are gone; whoever else has joined is not.
fn leaked_slots(segment: &Segment) -> anyhow::Result<usize> {
    let participants = segment.participants()?;
    let is_there = |pid: u32| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    };
    let kept = participants.iter().filter(|participant| participant.liveness != Liveness::Dead);
    Ok(kept.filter(|participant| !is_there(participant.pid)).count())
}

/// In a worker: it dies with the herd.
fn bind_life_to(herd: Pid) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(herd) {
        bail!("the herd has ended");
    }
    Ok(())
}

/// One that was killed, or will be told to end.
struct Worker {
    serial: usize,
    is_killed: bool,
}

/// A lock and its workers.
struct Herd<'a, S> {
    segment: &'a Segment,
    subject: S,
    size: u32,
    rate: f64,
    load: Load,
    random: Prng,
    workers: HashMap<Pid, Worker>,
    /// Of this turn.
    serial: usize,
    duration: Duration,
    kills: u64,
    stuck: usize,
    /// Some were, in the last turn: who tried to take the lock now might be, too.
    is_stuck: bool,
    recoveries: Histogram<u64>,
}

impl<'a, S: Subject> Herd<'a, S> {
    fn new(args: &WorkerArgs, Rate(rate): Rate, segment: &'a Segment) -> anyhow::Result<Self> {
        let load = args.load();
        Ok(Self {
            segment,
            subject: S::open(segment)?,
            size: args.workers,
            rate,
            load,
            random: Prng::seeded(load.seed),
            workers: HashMap::new(),
            serial: 0,
            duration: Duration::ZERO,
            kills: 0,
            stuck: 0,
            is_stuck: false,
            recoveries: Histogram::new(3)?,
        })
    }

    fn take_turn(&mut self, length: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.subject.arena().begin();
        self.serial = 0;
        for _ in 0..self.size {
            self.start_worker()?;
        }
        let start = Instant::now();
        let mut next = self.gap();
        while !interrupt.is_raised() {
            let now = start.elapsed();
            if now >= length {
                break;
            }
            if now < next {
                std::thread::sleep((next.min(length) - now).min(Duration::from_millis(50)));
                continue;
            }
            next += self.gap();
            self.kill_one();
            // A fork now would take a CPU from those who die and recover.
            std::thread::sleep(next.saturating_sub(start.elapsed()).min(REST));
            self.start_worker()?;
            while self.bury_one()? {}
        }
        self.duration += start.elapsed();
        self.subject.arena().stop();
        self.wait_for_all()?;
        if !self.is_stuck {
            // What the last victim left would be taken for that of a worker of the next turn. A worker of its own looks
            // after it, for this process must not be stuck.
            self.start(0, |herd| herd.subject.enter(|arena| arena.repair(None), |_| ()))?;
            self.wait_for_all()?;
        }
        for ns in self.subject.arena().recoveries_ns() {
            self.recoveries.record(ns)?;
        }
        Ok(())
    }

    /// Until the next kill: exponential, so that the past says nothing about it.
    fn gap(&mut self) -> Duration {
        const STEPS: u64 = 1 << 53;
        let uniform = (self.random.below(STEPS) + 1) as f64 / STEPS as f64;
        Duration::from_secs_f64(-uniform.ln() / self.rate)
    }

    fn start_worker(&mut self) -> anyhow::Result<()> {
        self.serial += 1;
        // More kills in one turn than its rate allows.
        let serial = self.serial;
        if serial >= SERIALS {
            bail!("there are no more serial numbers in this turn");
        }
        let load = Load { seed: self.random.step(), ..self.load };
        self.start(serial, |herd| {
            worker::run::<S>(herd.segment, serial, load, |subject, _| subject.arena().is_stopped())?;
            Ok(())
        })
    }

    /// Starts a process that does `work`.
    fn start(&mut self, serial: usize, work: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let parent = rustix::process::getpid();
        // SAFETY: this process has one thread, so the child may do whatever it could.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("cannot start a worker"),
            0 => std::process::exit(match bind_life_to(parent).and_then(|()| work(self)) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("crosslock: worker: {error:#}");
                    2
                }
            }),
            pid => {
                let pid = Pid::from_raw(pid).context("a child is process 0")?;
                self.workers.insert(pid, Worker { serial, is_killed: false });
                Ok(())
            }
        }
    }

    /// Kills somebody, if anybody lives.
    fn kill_one(&mut self) {
        let mut living: Vec<_> = self.workers.iter_mut().filter(|(_, worker)| !worker.is_killed).collect();
        // The map's own order is another at each run.
        living.sort_unstable_by_key(|(_, worker)| worker.serial);
        let Some(count) = u64::try_from(living.len()).ok().filter(|&count| count > 0) else { return };
        let chosen = usize::try_from(self.random.below(count)).unwrap_or_default();
        let (&pid, victim) = living.swap_remove(chosen);
        victim.is_killed = true;
        self.subject.arena().note_kill(victim.serial, monotonic_ns());
        // A child that nobody has waited for: it has its number still.
        if rustix::process::kill_process(pid, Signal::KILL).is_ok() {
            self.kills += 1;
        }
    }

    /// Takes notice of the end of a worker, if there is one; whether there was.
    fn bury_one(&mut self) -> anyhow::Result<bool> {
        if self.workers.is_empty() {
            return Ok(false);
        }
        let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)? else { return Ok(false) };
        let worker = self.workers.remove(&pid);
        let may_end = worker.is_some_and(|worker| worker.is_killed) || self.subject.arena().is_stopped();
        let was_killed = status.terminating_signal() == Some(Signal::KILL.as_raw());
        if !was_killed && status.exit_status() != Some(0) || !may_end {
            bail!("a worker process failed: {status:?}");
        }
        Ok(true)
    }

    /// Waits for the survivors; those who do not come back are stuck.
    fn wait_for_all(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while !self.workers.is_empty() && start.elapsed() < PATIENCE {
            if !self.bury_one()? {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        let stuck = self.workers.values().filter(|worker| !worker.is_killed).count();
        self.stuck += stuck;
        self.is_stuck = stuck > 0;
        for (pid, _) in self.workers.drain() {
            // As in `kill_one`.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
        Ok(())
    }

    fn outcome(self) -> anyhow::Result<Outcome> {
        let arena = self.subject.arena();
        let lost_updates = match self.is_stuck {
            false => self.subject.enter(|arena| arena.repair(None), |arena| arena.lost_updates())?,
            true => 0,
        };
        // Who has joined has it for a moment.
        let is_free = (0..100).any(|_| {
            let is_free = self.subject.is_free();
            if !is_free {
                std::thread::sleep(Duration::from_millis(1));
            }
            is_free
        });
        Ok(Outcome {
            duration: self.duration,
            kills: self.kills,
            acquisitions: arena.visits(),
            violations: arena.violations(),
            lost_updates,
            deaths: arena.deaths(),
            stuck: self.stuck,
            is_free,
            recovery: Recovery::of(&self.recoveries),
        })
    }
}

impl Herd<'_, PthreadMutex> {
    /// Goes on with a mutex that was never locked, when all workers are gone.
    fn renew(&mut self) -> anyhow::Result<()> {
        self.subject.renew()?;
        self.subject.arena().put_in_order(None);
        self.is_stuck = false;
        Ok(())
    }
}
