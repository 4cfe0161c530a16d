//! Workers that are processes: the arena lies in a segment without a name, and each worker tells what it did at its end.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crosslock::{Mutex, Segment};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};

use super::arena::{Arena, Load, Worker, work};
use super::contended::{Pass, sample};
use super::contestant::Shareable;
use super::figure::Sample;
use super::place::Trial;
use super::probe::{Counting, Timing};
use super::roster::{self, Competitor};
use crate::child::{self, ChildProcess, Inherited};
use crate::exit::Verdict;

/// Which of the two passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Watch {
    Counts,
    Times,
}

impl Watch {
    fn name(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Times => "times",
        }
    }
}

/// What a lock needs so that processes can want it.
#[derive(Debug)]
pub(super) struct Shared {
    /// Both passes; the name is the competitor's.
    pub(super) run: fn(name: &str, &Load, &Trial<'_>) -> anyhow::Result<Sample>,
    /// In a worker process.
    work: fn(&Segment, &WorkerArgs) -> anyhow::Result<Worker>,
}

impl Shared {
    pub(super) const fn of<L: Shareable>() -> Self {
        Self { run: run::<L>, work: work_in::<L> }
    }
}

/// One worker process of a bench.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    inherited: Inherited,
    #[arg(long, value_parser = roster::parser())]
    lock: &'static Competitor,
    #[arg(long)]
    watch: Watch,
    #[arg(long)]
    number: u32,
    #[command(flatten)]
    load: Load,
}

/// In the worker process: does the work, and tells of it.
pub(crate) fn run_worker(args: &WorkerArgs) -> anyhow::Result<Verdict> {
    let segment = child::attach(args.inherited)?;
    let shared = args.lock.shared.as_ref().context("this lock cannot be shared")?;
    child::tell(&Message::try_from((shared.work)(&segment, args)?)?)?;
    Ok(Verdict::Good)
}

fn work_in<L: Shareable>(segment: &Segment, args: &WorkerArgs) -> anyhow::Result<Worker> {
    // SAFETY: the parent has created it for the same lock.
    let arena = unsafe { SharedArena::<L>::open(segment) }?;
    let cx = segment.context()?;
    match args.watch {
        Watch::Counts => work::<L, _, Counting>(&arena, cx, &args.load, args.number),
        Watch::Times => work::<L, _, Timing>(&arena, cx, &args.load, args.number),
    }
}

fn run<L: Shareable>(name: &str, load: &Load, trial: &Trial<'_>) -> anyhow::Result<Sample> {
    let counted = pass::<L>(name, Watch::Counts, load, trial)?;
    let timed = pass::<L>(name, Watch::Times, load, trial)?;
    sample(&counted, &timed)
}

/// A worker that fails is not waited for, nor are the others then: they end with this process.
fn pass<L: Shareable>(name: &str, watch: Watch, load: &Load, trial: &Trial<'_>) -> anyhow::Result<Pass> {
    let segment = trial.options(load.workers)?.create_memfd("bench")?;
    let arena = SharedArena::<L>::create(&segment)?;
    let (sender, results) = mpsc::channel();
    for number in 0..load.workers {
        let worker = spawn(&segment, name, watch, number, load)?;
        let sender = sender.clone();
        thread::Builder::new().spawn(move || {
            // Nobody listens any more only if another worker has failed.
            let _ = sender.send(worker.result::<Message>().and_then(Worker::try_from));
        })?;
    }
    let elapsed = arena.stage().conduct(load, trial, || match results.try_recv() {
        Ok(Ok(_)) => bail!("a worker process ended before its time"),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(()),
    })?;
    let workers = results.into_iter().take(load.workers).collect::<anyhow::Result<_>>()?;
    Ok(Pass { elapsed, workers })
}

fn spawn(
    segment: &Segment,
    name: &str,
    watch: Watch,
    number: usize,
    load: &Load,
) -> anyhow::Result<ChildProcess> {
    let Load { workers, steps_inside, pauses_inside, max_steps_outside } = *load;
    let options = [
        ("--lock", name.to_owned()),
        ("--watch", watch.name().to_owned()),
        ("--number", number.to_string()),
        ("--workers", workers.to_string()),
        ("--steps-inside", steps_inside.to_string()),
        ("--pauses-inside", pauses_inside.to_string()),
        ("--max-steps-outside", max_steps_outside.to_string()),
    ];
    let args = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    ChildProcess::start("bench-worker", segment, args)
}

/// Room for an arena in a segment, whatever the lock.
type Room = [u64; 64];

const ROOM: &str = "arena";

/// An arena in a segment: the data of a mutex that nobody locks.
struct SharedArena<L> {
    room: Mutex<Room>,
    holds: PhantomData<L>,
}

impl<L: Shareable> SharedArena<L> {
    fn create(segment: &Segment) -> anyhow::Result<Self> {
        let room = segment.mutex(ROOM, [0; size_of::<Room>() / size_of::<u64>()])?;
        let arena = Self { room, holds: PhantomData };
        // SAFETY: `at` gives room for it, and nobody else knows of it yet.
        unsafe { arena.at().write(Arena::around()) };
        arena.settle();
        Ok(arena)
    }

    /// # Safety
    /// The segment has one, for the same `L`.
    unsafe fn open(segment: &Segment) -> anyhow::Result<Self> {
        Ok(Self { room: segment.open_mutex(ROOM)?, holds: PhantomData })
    }

    fn at(&self) -> *mut Arena<L> {
        const {
            assert!(size_of::<Arena<L>>() <= size_of::<Room>(), "the room is too small");
            assert!(align_of::<Arena<L>>() <= 64, "the data of a mutex is aligned to a line");
        }
        self.room.contents().words().as_ptr().cast_mut().cast()
    }
}

impl<L: Shareable> Deref for SharedArena<L> {
    type Target = Arena<L>;

    fn deref(&self) -> &Arena<L> {
        // SAFETY: made by `create`, in this process or in its parent, and mapped as long as `room` lives; all in it
        // are atomics, or a lock that may be shared (`Shareable`) with what it guards.
        unsafe { &*self.at() }
    }
}

/// A [`Worker`] on its way from a process.
#[derive(Serialize, Deserialize)]
struct Message {
    ops: u64,
    cpu: Duration,
    waits: Option<Vec<u8>>,
}

impl TryFrom<Worker> for Message {
    type Error = anyhow::Error;

    fn try_from(worker: Worker) -> anyhow::Result<Self> {
        let Worker { ops, cpu, waits } = worker;
        let serialize = |waits| {
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(&waits, &mut bytes).map(|_| bytes)
        };
        Ok(Self { ops, cpu, waits: waits.map(serialize).transpose()? })
    }
}

impl TryFrom<Message> for Worker {
    type Error = anyhow::Error;

    fn try_from(message: Message) -> anyhow::Result<Self> {
        let Message { ops, cpu, waits } = message;
        let deserialize = |waits: Vec<u8>| Deserializer::new().deserialize(&mut waits.as_slice());
        Ok(Self { ops, cpu, waits: waits.map(deserialize).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::histogram;
    use super::*;

    #[test]
    fn a_worker_comes_over_whole() {
        let mut waits = histogram().unwrap();
        waits.record_n(250, 7).unwrap();
        waits.record(90_000_000_000).unwrap();
        let sent = Worker { ops: 8, cpu: Duration::from_nanos(9), waits: Some(waits) };
        let (ops, cpu, waits) = (sent.ops, sent.cpu, sent.waits.clone());
        let told = serde_json::to_string(&Message::try_from(sent).unwrap()).unwrap();
        let received = Worker::try_from(serde_json::from_str::<Message>(&told).unwrap()).unwrap();
        assert_eq!((received.ops, received.cpu, received.waits), (ops, cpu, waits));
    }
}
