//! The victim: a process that prepares, says so, does one operation, and says so.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crosslock::{Options, Segment};
use crosslock_core::primitive::Ordering;
use rustix::process::{Signal, getpid, kill_process};

use super::control::Named;
use super::lock::{CrashLock, Section, half_a_visit, visit};
use super::mark::Mark;
use super::robust::{Robust, RobustRw};
use super::scenario::{LockKind, Operation};
use crate::child::{self, Inherited};
use crate::exit::Verdict;

/// Over before anybody falls asleep.
const SHORT_PATIENCE: Duration = Duration::from_micros(200);
/// Long enough to fall asleep, be it step by step.
const LONG_PATIENCE: Duration = Duration::from_millis(200);

/// Slots of the segment.
pub(super) const PARTICIPANTS: u32 = 16;

/// Name of the object that a victim creates.
pub(super) const OBJECT: &str = "made by the victim";
/// Name of the segment that a victim creates.
pub(super) const SEGMENT: &str = "made-by-the-victim";

/// What a victim is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VictimArgs {
    #[command(flatten)]
    inherited: Inherited,
    #[arg(long, value_enum)]
    operation: Operation,
    #[arg(long, value_enum)]
    lock: LockKind,
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// In the victim's process.
pub(crate) fn run_victim(args: &VictimArgs) -> anyhow::Result<Verdict> {
    let segment = child::attach(args.inherited)?;
    match args.lock {
        LockKind::Robust => run::<Robust>(args, segment)?,
        LockKind::RobustRw => run::<RobustRw>(args, segment)?,
        LockKind::NamedAtOnce => run::<Named<false>>(args, segment)?,
        LockKind::NamedLate => run::<Named<true>>(args, segment)?,
    }
    Ok(Verdict::Good)
}

fn run<L: CrashLock>(args: &VictimArgs, segment: Segment) -> anyhow::Result<()> {
    match args.operation {
        Operation::Section => {
            let lock = L::open(&segment)?;
            Mark::Begin.tell();
            let mut guard = take(&lock)?;
            Mark::Held.tell();
            visit(&mut guard);
            drop(guard);
            Mark::End.tell();
        }
        Operation::Read => {
            let lock = L::open(&segment)?;
            Mark::Begin.tell();
            let read = lock.read(|words| {
                Mark::Held.tell();
                words[0].load(Ordering::Relaxed);
            });
            Mark::End.tell();
            read?;
        }
        Operation::Release => {
            let lock = L::open(&segment)?;
            let mut guard = take(&lock)?;
            visit(&mut guard);
            Mark::Begin.tell();
            drop(guard);
            Mark::End.tell();
        }
        Operation::LeaveAwake => leave::<L>(&segment, SHORT_PATIENCE)?,
        Operation::LeaveAsleep => leave::<L>(&segment, LONG_PATIENCE)?,
        Operation::Register => {
            Mark::Begin.tell();
            let slot = segment.register();
            Mark::End.tell();
            slot?;
        }
        Operation::ThreadExit => end_a_thread(&segment)?,
        Operation::Detach => {
            segment.register()?;
            Mark::Begin.tell();
            drop(segment);
            Mark::End.tell();
        }
        Operation::CreateObject => {
            segment.register()?;
            Mark::Begin.tell();
            let created = L::create(&segment, OBJECT);
            Mark::End.tell();
            created?;
        }
        Operation::CreateSegment => {
            let directory = args.directory.as_ref().context("a segment is created in a --directory")?;
            let options = options().directory(directory);
            Mark::Begin.tell();
            let created = options.create(SEGMENT);
            Mark::End.tell();
            created?;
        }
        Operation::DieInside => {
            let lock = L::open(&segment)?;
            let guard = take(&lock)?;
            half_a_visit(&guard);
            kill_process(getpid(), Signal::KILL)?;
            drop(guard);
        }
        Operation::Wait => {
            let lock = L::open(&segment)?;
            let mut stdout = std::io::stdout();
            stdout.write_all(b"!")?;
            stdout.flush()?;
            drop(take(&lock)?);
        }
    }
    Ok(())
}

/// What segments are like, here.
pub(super) fn options() -> Options {
    Options::new().participants(PARTICIPANTS).objects(8).heap_size(1 << 12)
}

fn take<L: CrashLock>(lock: &L) -> anyhow::Result<L::Guard<'_>> {
    lock.lock(None)?.context("a wait without end has ended without the lock")
}

fn leave<L: CrashLock>(segment: &Segment, patience: Duration) -> anyhow::Result<()> {
    let lock = L::open(segment)?;
    Mark::Begin.tell();
    let guard = lock.lock(Some(patience));
    Mark::End.tell();
    if guard?.is_some_and(|guard| !guard.owner_died()) {
        bail!("somebody has the lock, and it was given to the victim");
    }
    Ok(())
}

/// The tracer follows the thread. The process lives on, until it is killed.
fn end_a_thread(segment: &Segment) -> anyhow::Result<()> {
    let segment = segment.clone();
    let thread = std::thread::spawn(move || {
        segment.register()?;
        // The process keeps the segment attached: what gives the slot back is the end of the thread alone.
        Mark::Begin.tell();
        anyhow::Ok(())
    });
    match thread.join() {
        Ok(ended) => ended?,
        Err(_) => bail!("the thread panicked"),
    }
    loop {
        std::thread::park();
    }
}
