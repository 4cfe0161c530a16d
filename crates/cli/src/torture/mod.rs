//! `crosslock torture`: does a lock exclude, on this machine?

mod arena;
mod busted;
mod processes;
mod report;
mod worker;

use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use crosslock::{Options, Segment, SegmentContext};
use crosslock_core::RawLock;
use serde::Serialize;

pub(crate) use self::busted::Busted;
pub(crate) use self::processes::{WorkerArgs, run_worker};
use self::report::Report;
use self::worker::{Load, Tally};
use crate::child::Handle;
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::kind::{LockKind, with_lock};
use crate::progress;

/// Let workers fight for one lock, and see whether it ever lets two in
///
/// Each worker takes the lock, changes data that cannot be changed by two at once without a trace, and gives
/// it up, with random short and now and then long holds. Exit status 1 if exclusion failed or a worker got
/// stuck.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The lock
    #[arg(long, value_enum, default_value = "pvqspinlock", value_name = "KIND")]
    lock: LockKind,
    /// What the workers are
    #[arg(long, value_enum, default_value = "threads")]
    scope: Scope,
    /// How many of them
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    workers: u32,
    /// How long: 500ms, 5s, 2m
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Mean length of a critical section, in pauses
    #[arg(long, default_value_t = 20, value_name = "N")]
    cs: u32,
    /// Mean time between critical sections, in pauses
    #[arg(long, default_value_t = 20, value_name = "N")]
    ncs: u32,
    /// Work in a named segment, so that others can join
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    /// Join a torture that somebody has started in that segment, with the same lock
    #[arg(long, requires = "segment")]
    join: bool,
    /// Seed of the random lengths
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Never select the paravirtual lock for `--lock auto`
    #[arg(long)]
    nopvspin: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    Threads,
    Processes,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "threads",
            Self::Processes => "processes",
        })
    }
}

/// How long after its time a worker may come back, before it counts as stuck. Fair locks with more waiters
/// than CPUs take a time slice for every hand-over.
const GRACE: Duration = Duration::from_secs(60);

/// The arena's segment, whose name goes with it.
struct Place {
    segment: Segment,
    created: Option<String>,
}

impl Place {
    fn new<L: RawLock<SegmentContext>>(args: &Args) -> anyhow::Result<Self> {
        let participants = u32::try_from(arena::PARTICIPANTS)?;
        let options = Options::new().temporary(true).participants(participants);
        let (segment, created) = match &args.segment {
            Some(name) if args.join => (Segment::open(name)?, None),
            Some(name) => (options.create(name)?, Some(name.clone())),
            // Without a name: it goes with its last user, however that one ends.
            None => (options.create_memfd("torture")?, None),
        };
        if args.join {
            segment
                .open_spin_mutex::<arena::Words, L>(arena::NAME)
                .context("nobody tortures that lock there")?;
        } else {
            segment.spin_mutex::<arena::Words, L>(arena::NAME, arena::new())?;
        }
        Ok(Self { segment, created })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = &self.created
            && let Err(error) = Segment::remove(name)
        {
            eprintln!("crosslock: {error}");
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let (kind, choice) = args.lock.resolve(args.workers, args.nopvspin);
    if let Some(choice) = choice {
        eprintln!("crosslock: {choice}");
    }
    let report = with_lock!(kind, L => torture::<L>(args, kind))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.verdict())
}

fn torture<L>(args: &Args, kind: LockKind) -> anyhow::Result<Report>
where
    L: RawLock<SegmentContext> + 'static,
{
    let interrupt = Interrupt::install()?;
    let place = Place::new::<L>(args)?;
    let segment = &place.segment;
    let before = segment.counters();
    let workers = match args.scope {
        Scope::Threads => start_threads::<L>(args, segment, &interrupt)?,
        Scope::Processes => processes::start(args, kind, segment)?,
    };
    let (tallies, stuck) = workers.collect(args, &interrupt)?;

    let lost_updates = if stuck == 0 {
        let mutex = segment.open_spin_mutex::<arena::Words, L>(arena::NAME)?;
        let guard = mutex.lock()?;
        arena::Inside::new(&guard).lost_updates()
    } else {
        0
    };
    let events = report::events(&before, &segment.counters());
    Report::new((L::NAME, args.scope), &tallies, stuck, lost_updates, events)
}

impl Args {
    fn load(&self, worker: u32) -> Load {
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(worker));
        Load { duration: self.duration, cs: self.cs, ncs: self.ncs, seed }
    }
}

/// The running workers.
struct Workers {
    results: mpsc::Receiver<anyhow::Result<Tally>>,
    /// Of processes; threads see the interrupt by themselves.
    handles: Vec<Handle>,
}

fn start_threads<L>(args: &Args, segment: &Segment, interrupt: &Interrupt) -> anyhow::Result<Workers>
where
    L: RawLock<SegmentContext> + 'static,
{
    let (sender, results) = mpsc::channel();
    for worker in 0..args.workers {
        let (sender, segment, interrupt) = (sender.clone(), segment.clone(), interrupt.clone());
        let load = args.load(worker);
        std::thread::Builder::new().name(format!("worker {worker}")).spawn(move || {
            // Nobody listens any more only if this worker was given up as stuck.
            let _ = sender.send(worker::run::<L>(&segment, load, &interrupt));
        })?;
    }
    Ok(Workers { results, handles: Vec::new() })
}

impl Workers {
    /// Waits for the workers; gives what they did, and how many did not come back.
    fn collect(self, args: &Args, interrupt: &Interrupt) -> anyhow::Result<(Vec<Tally>, usize)> {
        let start = Instant::now();
        let millis = u64::try_from(args.duration.as_millis())?;
        let bar = progress::bar(millis, format!("torture {} {}", args.workers, args.scope));
        let mut tallies = Vec::new();
        let mut until = start + args.duration + GRACE;
        let mut interrupted = false;
        while tallies.len() < args.workers as usize && Instant::now() < until {
            match self.results.recv_timeout(Duration::from_millis(50)) {
                Ok(tally) => tallies.push(tally?),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("a worker ended without a result"),
            }
            if interrupt.is_raised() && !interrupted {
                interrupted = true;
                until = Instant::now() + GRACE;
                self.handles.iter().for_each(Handle::interrupt);
            }
            bar.set_position(u64::try_from(start.elapsed().as_millis())?.min(millis));
        }
        bar.finish_and_clear();
        let stuck = args.workers as usize - tallies.len();
        Ok((tallies, stuck))
    }
}
