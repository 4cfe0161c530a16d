//! Workers that are processes.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use crosslock::Segment;

use super::worker::{self, Load, Message, Tally};
use super::{Args, Workers};
use crate::child::{self, ChildProcess, Inherited};
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::kind::{LockKind, with_lock};

/// One worker process of a torture.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    inherited: Inherited,
    #[arg(long, value_enum)]
    lock: LockKind,
    #[arg(long, value_parser = parse_duration)]
    duration: Duration,
    #[arg(long)]
    cs: u32,
    #[arg(long)]
    ncs: u32,
    #[arg(long)]
    seed: u64,
}

/// In the worker process: does the work, and tells of it.
pub(crate) fn run_worker(args: &WorkerArgs) -> anyhow::Result<Verdict> {
    let segment = child::attach(args.inherited)?;
    let interrupt = Interrupt::install()?;
    let load = Load { duration: args.duration, cs: args.cs, ncs: args.ncs, seed: args.seed };
    let tally = with_lock!(args.lock, L => worker::run::<L>(&segment, load, &interrupt))?;
    child::tell(&tally.to_message()?)?;
    Ok(Verdict::Good)
}

/// Starts the workers.
pub(super) fn start(args: &Args, kind: LockKind, segment: &Segment) -> anyhow::Result<Workers> {
    let (sender, results) = mpsc::channel();
    let mut handles = Vec::new();
    for number in 0..args.workers {
        let worker = spawn(args.load(number), kind, segment)?;
        handles.push(worker.handle()?);
        let sender = sender.clone();
        std::thread::spawn(move || {
            let tally = worker.result::<Message>().and_then(|message| Tally::from_message(&message));
            // Nobody listens any more only if this worker was given up as stuck.
            let _ = sender.send(tally);
        });
    }
    Ok(Workers { results, handles })
}

fn spawn(load: Load, kind: LockKind, segment: &Segment) -> anyhow::Result<ChildProcess> {
    let kind = kind.to_possible_value().context("a lock without a name")?;
    let options = [
        ("--lock", kind.get_name().to_owned()),
        ("--duration", format!("{}us", load.duration.as_micros())),
        ("--cs", load.cs.to_string()),
        ("--ncs", load.ncs.to_string()),
        ("--seed", load.seed.to_string()),
    ];
    let args = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    ChildProcess::start("torture-worker", segment, args)
}
