//! `crosslock torture`: does a lock exclude, on this machine, also while those who use it are killed?

mod arena;
mod busted;
mod kill;
mod lock;
mod processes;
mod pthread;
mod report;
mod subject;
mod worker;

use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;
use crosslock::{Options, Segment};
use serde::Serialize;

pub(crate) use self::busted::Busted;
use self::kill::Rate;
use self::lock::{Lock, with_subject};
pub(crate) use self::processes::{WorkerArgs, run_worker};
use self::report::Report;
use self::subject::Subject;
use self::worker::{Load, Tally};
use crate::child::Handle;
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::progress;

/// Let workers fight for one lock, and see whether it ever lets two in
///
/// Each worker takes the lock, changes data that cannot be changed by two at once without a trace, and gives
/// it up, with random short and now and then long holds. With --kill, workers are killed at any moment, and replaced; who
/// gets the lock of a dead owner puts the data in order and goes on. Exit status 1 if exclusion failed or a worker
/// got stuck.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The lock
    #[arg(long, value_enum, default_value = "robust", value_name = "KIND")]
    lock: Lock,
    /// What the workers are
    #[arg(long, value_enum, default_value = "threads")]
    scope: Scope,
    /// How many of them
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    workers: u32,
    /// How long: 500ms, 5s, 2m
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Kill so many workers per second, at random: 100/s
    ///
    /// Needs --scope processes and a lock that survives it. The robust lock takes turns of a second with the robust
    /// pthread mutex, each with its own workers and data, so that how fast they recover can be compared: it takes twice
    /// as long as --duration says.
    #[arg(long, value_name = "RATE", conflicts_with = "join")]
    kill: Option<Rate>,
    /// Mean length of a critical section, in pauses [default: 20, with --kill 200]
    #[arg(long, value_name = "N")]
    cs: Option<u32>,
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
    fn new<S: Subject>(args: &Args) -> anyhow::Result<Self> {
        let participants = u32::try_from(arena::PARTICIPANTS)?;
        let options = Options::new().temporary(true).participants(participants);
        let (segment, created) = match &args.segment {
            Some(name) if args.join => (Segment::open(name)?, None),
            Some(name) => (options.create(name)?, Some(name.clone())),
            // Without a name: it goes with its last user, however that one ends.
            None => (options.create_memfd("torture")?, None),
        };
        let place = Self { segment, created };
        if args.join {
            S::open(&place.segment)?
        } else {
            S::create(&place.segment)?
        };
        Ok(place)
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
    let lock = match args.lock {
        Lock::Spin(kind) => {
            let (kind, choice) = kind.resolve(args.workers, args.nopvspin);
            if let Some(choice) = choice {
                eprintln!("crosslock: {choice}");
            }
            Lock::Spin(kind)
        }
        lock => lock,
    };
    let args = Args { lock, ..args.clone() };
    if let Some(rate) = args.kill {
        return with_subject!(lock, S => kill::run::<S>(&args, rate));
    }
    let report = with_subject!(lock, S => torture::<S>(&args))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.verdict())
}

fn torture<S: Subject + 'static>(args: &Args) -> anyhow::Result<Report> {
    let interrupt = Interrupt::install()?;
    let place = Place::new::<S>(args)?;
    let segment = &place.segment;
    let before = segment.counters();
    let workers = match args.scope {
        Scope::Threads => start_threads::<S>(args, segment, &interrupt)?,
        Scope::Processes => processes::start(args, segment)?,
    };
    let (tallies, stuck) = workers.collect(args, &interrupt)?;

    let subject = S::open(segment)?;
    let lost_updates = match stuck {
        0 => subject.enter(|arena| arena.repair(None), |arena| arena.lost_updates())?,
        _ => 0,
    };
    let events = report::events(&before, &segment.counters());
    let wrong = (subject.arena().violations(), lost_updates);
    Report::new((S::NAME, args.scope), &tallies, stuck, wrong, events)
}

impl Args {
    fn load(&self, worker: u32) -> Load {
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(worker));
        let cs = self.cs.unwrap_or(if self.kill.is_some() { 200 } else { 20 });
        Load { cs, ncs: self.ncs, seed }
    }
}

/// The running workers.
struct Workers {
    results: mpsc::Receiver<anyhow::Result<Tally>>,
    /// Of processes; threads see the interrupt by themselves.
    handles: Vec<Handle>,
}

fn start_threads<S: Subject + 'static>(
    args: &Args,
    segment: &Segment,
    interrupt: &Interrupt,
) -> anyhow::Result<Workers> {
    let (sender, results) = mpsc::channel();
    for worker in 0..args.workers {
        let (sender, segment, interrupt) = (sender.clone(), segment.clone(), interrupt.clone());
        let (load, duration) = (args.load(worker), args.duration);
        std::thread::Builder::new().name(format!("worker {worker}")).spawn(move || {
            // Nobody listens any more only if this worker was given up as stuck.
            let _ = sender.send(worker::run::<S>(&segment, 0, load, |_, passed| {
                passed >= duration || interrupt.is_raised()
            }));
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
