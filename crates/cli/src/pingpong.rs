//! `crosslock pingpong`: a writer and a reader alternate under two locks.
//!
//! ```text
//!             empty                full
//!   writer    acquire              (released by the writer when there is a message)
//!   reader    (released by the     acquire
//!             reader when it
//!             has read it)
//! ```
//! At the start `full` is held, as if the writer had it. Whoever acquires a lock gives up the other: the right
//! to release a lock travels with the message.

use std::fmt;
use std::time::Instant;

use anyhow::Context as _;
use clap::ValueEnum;
use crosslock::{Options, Segment, SegmentContext};
use crosslock_core::RawLock;
use crosslock_core::primitive::{AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

use crate::child::{self, ChildProcess, Inherited};
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::kind::{LockKind, with_lock};
use crate::torture::Scope;

/// Let a writer and a reader alternate under two locks, and check the order
///
/// The writer writes 1, 2, 3, ...; the reader must read each of them once. Exit status 1 if it did not.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The lock
    #[arg(long, value_enum, default_value = "pvqspinlock", value_name = "KIND")]
    lock: LockKind,
    /// What writer and reader are
    #[arg(long, value_enum, default_value = "threads")]
    scope: Scope,
    /// How many messages
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The reader process of a ping-pong.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReaderArgs {
    #[command(flatten)]
    inherited: Inherited,
    #[arg(long, value_enum)]
    lock: LockKind,
}

/// What the reader found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Reading {
    read: u64,
    out_of_order: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    lock: &'static str,
    scope: Scope,
    rounds: u64,
    out_of_order: u64,
    duration_s: f64,
    rounds_per_s: f64,
    verdict: &'static str,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, scope, rounds, out_of_order, duration_s, rounds_per_s, verdict } = self;
        writeln!(f, "lock          {lock}, 2 {scope}")?;
        writeln!(f, "rounds        {rounds} in {duration_s:.3} s ({rounds_per_s:.0}/s)")?;
        writeln!(f, "out of order  {out_of_order}")?;
        match *verdict {
            "ok" => writeln!(f, "OK: every message was read once, in order"),
            _ => writeln!(f, "FAILED: messages were lost, repeated or read early"),
        }
    }
}

/// The two locks, in one segment; the message is the data of the first.
struct Court<'a, L> {
    cx: &'a SegmentContext,
    empty: crosslock::SpinMutex<u64, L>,
    full: crosslock::SpinMutex<u64, L>,
}

impl<'a, L: RawLock<SegmentContext>> Court<'a, L> {
    fn new(segment: &'a Segment) -> anyhow::Result<Self> {
        let empty = segment.spin_mutex("empty", 0)?;
        let full = segment.spin_mutex("full", 0)?;
        Ok(Self { cx: segment.context()?, empty, full })
    }

    fn message(&self) -> &AtomicU64 {
        &self.empty.contents().words()[0]
    }

    fn write(&self, rounds: u64, interrupt: &Interrupt) -> anyhow::Result<u64> {
        for round in 1..=rounds {
            self.empty.raw().acquire(self.cx)?;
            let last = interrupt.is_raised() || round == rounds;
            self.message().store(if last { round | LAST } else { round }, Ordering::Relaxed);
            // SAFETY: it is held, and the right to release it came with `empty` (at first: from the start).
            unsafe { self.full.raw().release(self.cx) }?;
            if last {
                return Ok(round);
            }
        }
        Ok(rounds)
    }

    fn read(&self) -> anyhow::Result<Reading> {
        let (mut read, mut out_of_order) = (0, 0);
        loop {
            self.full.raw().acquire(self.cx)?;
            let message = self.message().load(Ordering::Relaxed);
            read += 1;
            out_of_order += u64::from(message & !LAST != read);
            // SAFETY: it is held, and the right to release it came with `full`.
            unsafe { self.empty.raw().release(self.cx) }?;
            if message & LAST != 0 {
                return Ok(Reading { read, out_of_order });
            }
        }
    }
}

/// Marks the last message.
const LAST: u64 = 1 << 63;

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let report = with_lock!(args.lock, L => play::<L>(args))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.verdict == "ok" { Verdict::Good } else { Verdict::Bad })
}

fn play<L: RawLock<SegmentContext> + 'static>(args: &Args) -> anyhow::Result<Report> {
    let interrupt = Interrupt::install()?;
    let segment = Options::new().temporary(true).create_memfd("pingpong")?;
    let court = Court::<L>::new(&segment)?;
    court.full.raw().acquire(court.cx)?;

    let start = Instant::now();
    let (written, reading) = match args.scope {
        Scope::Threads => std::thread::scope(|scope| {
            let reader = scope.spawn(|| Court::<L>::new(&segment)?.read());
            let written = court.write(args.rounds, &interrupt)?;
            let reading = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
            anyhow::Ok((written, reading))
        })?,
        Scope::Processes => {
            let kind = args.lock.to_possible_value().context("a lock without a name")?;
            let reader = ChildProcess::start("pingpong-reader", &segment, ["--lock", kind.get_name()])?;
            (court.write(args.rounds, &interrupt)?, reader.result()?)
        }
    };
    let duration_s = start.elapsed().as_secs_f64();

    let exact = reading.out_of_order == 0 && reading.read == written;
    Ok(Report {
        lock: L::NAME,
        scope: args.scope,
        rounds: written,
        out_of_order: reading.out_of_order,
        duration_s,
        rounds_per_s: written as f64 / duration_s,
        verdict: if exact { "ok" } else { "failed" },
    })
}

pub(crate) fn run_reader(args: &ReaderArgs) -> anyhow::Result<Verdict> {
    let segment = child::attach(args.inherited)?;
    // The writer ends the game in order.
    let _interrupt = Interrupt::install()?;
    child::tell(&with_lock!(args.lock, L => Court::<L>::new(&segment)?.read())?)?;
    Ok(Verdict::Good)
}
