//! Workers that are processes.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use crosslock::Segment;

use super::kill::{self, Rate};
use super::lock::{Lock, with_subject};
use super::worker::{self, Load, Message, Tally};
use super::{Args, Workers};
use crate::child::{self, ChildProcess, Inherited};
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;

/// One worker process of a torture, or with `--kill` the one that has and kills them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    inherited: Inherited,
    #[arg(long, value_enum)]
    pub(super) lock: Lock,
    #[arg(long, value_parser = parse_duration)]
    pub(super) duration: Duration,
    #[arg(long)]
    cs: u32,
    #[arg(long)]
    ncs: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long, requires = "workers")]
    kill: Option<Rate>,
    #[arg(long, default_value_t = 1)]
    pub(super) workers: u32,
}

impl WorkerArgs {
    pub(super) fn load(&self) -> Load {
        Load { cs: self.cs, ncs: self.ncs, seed: self.seed }
    }
}

/// In the worker process: does the work, and tells of it.
pub(crate) fn run_worker(args: &WorkerArgs) -> anyhow::Result<Verdict> {
    let segment = child::attach(args.inherited)?;
    let interrupt = Interrupt::install()?;
    if let Some(rate) = args.kill {
        child::tell(&kill::run_herd(args, rate, &segment, &interrupt)?)?;
        return Ok(Verdict::Good);
    }
    let tally = with_subject!(args.lock, S => worker::run::<S>(&segment, 0, args.load(), |_, passed| {
        passed >= args.duration || interrupt.is_raised()
    }))?;
    child::tell(&tally.to_message()?)?;
    Ok(Verdict::Good)
}

/// Starts the workers.
pub(super) fn start(args: &Args, segment: &Segment) -> anyhow::Result<Workers> {
    let (sender, results) = mpsc::channel();
    let mut handles = Vec::new();
    for number in 0..args.workers {
        let worker = spawn(args, args.load(number), segment, [])?;
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

/// Starts one, with options beyond those that all have.
pub(super) fn spawn<const N: usize>(
    args: &Args,
    load: Load,
    segment: &Segment,
    more: [(&str, String); N],
) -> anyhow::Result<ChildProcess> {
    let lock = args.lock.to_possible_value().context("a lock without a name")?;
    let options = [
        ("--lock", lock.get_name().to_owned()),
        ("--duration", format!("{}us", args.duration.as_micros())),
        ("--cs", load.cs.to_string()),
        ("--ncs", load.ncs.to_string()),
        ("--seed", load.seed.to_string()),
    ];
    let args = options.into_iter().chain(more).flat_map(|(name, value)| [name.to_owned(), value]);
    ChildProcess::start("torture-worker", segment, args)
}
