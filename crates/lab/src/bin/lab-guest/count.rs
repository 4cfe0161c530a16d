//! Critical sections: so many, or for so long.

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use crosslock::Segment;
use crosslock::crosslock_core::Event;
use crosslock_lab::{Counted, Said};
use rustix::time::{ClockId, clock_gettime};

use crate::field::{Court, court};
use crate::{say, wait_for_start};

/// Enter critical sections
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The algorithm
    lock: String,
    /// The object's name; that of the algorithm otherwise
    #[arg(long)]
    name: Option<String>,
    /// At least so many of each thread
    #[arg(long, required_unless_present = "millis", conflicts_with = "millis")]
    turns: Option<u64>,
    /// And more, until the lock has gone so often from one kernel to another
    #[arg(long, default_value_t = 0, conflicts_with_all = ["millis", "alternate"])]
    crossings: u64,
    /// For so long
    #[arg(long)]
    millis: Option<u64>,
    /// So many threads
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// How long a section takes, in microseconds, beyond the least
    #[arg(long, default_value_t = 0)]
    hold_us: u64,
    /// Start together with so many processes in all, that count under the same name
    #[arg(long)]
    meet: Option<u64>,
    /// After each section let another domain be next
    #[arg(long)]
    alternate: bool,
}

pub(crate) fn run(segment: &Segment, args: &Args) -> anyhow::Result<()> {
    let court = court(segment, &args.lock, args.name.as_deref().unwrap_or(&args.lock))?;
    wait_for_start()?;
    if let Some(all) = args.meet {
        meet(segment, args.name.as_deref().unwrap_or(&args.lock), all)?;
    }
    let late_before = segment.counters()[Event::PvKickLate.index()];
    let (start, cpu) = (Instant::now(), cpu_us());
    let me = segment.domain() as u64;
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..args.threads).map(|_| scope.spawn(|| work(&*court, me, args, start))).collect();
        let join =
            |thread: ScopedJoinHandle<'_, _>| thread.join().map_err(|_| anyhow!("a thread has panicked"))?;
        threads.into_iter().map(join).sum::<anyhow::Result<Counted>>()
    })?;
    all.took_us = micros(start.elapsed());
    all.cpu_us = cpu_us() - cpu;
    all.late_kicks = segment.counters()[Event::PvKickLate.index()] - late_before;
    say(&Said::Counted(all))
}

/// How long to wait for crossings: nobody may be there any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often somebody who lets another be next looks whether he was.
const POLL: Duration = Duration::from_micros(50);

fn work(court: &dyn Court, me: u64, args: &Args, start: Instant) -> anyhow::Result<Counted> {
    let end = args.millis.map(|millis| start + Duration::from_millis(millis));
    let mut counted = Counted::default();
    let mut last = Instant::now();
    let is_last = |turn| args.turns == Some(turn);
    let has_crossed = |now: Instant| court.crossings() >= args.crossings || now - start > PATIENCE;
    let is_enough = |turns, now| args.turns.is_some_and(|least| turns >= least) && has_crossed(now);
    while !is_enough(counted.turns, last) && end.is_none_or(|end| last < end) {
        let found = court.section(me, Duration::from_micros(args.hold_us))?;
        let now = Instant::now();
        counted.turns += 1;
        counted.violations += u64::from(found.torn);
        counted.handed_over += u64::from(found.handed_over);
        counted.owner_deaths += u64::from(found.owner_died);
        counted.longest_us = counted.longest_us.max(micros(now - last));
        last = now;
        while args.alternate && !is_last(counted.turns) && court.last() == me {
            thread::sleep(POLL);
            last = Instant::now();
        }
    }
    Ok(counted)
}

/// Waits until so many are here.
fn meet(segment: &Segment, name: &str, all: u64) -> anyhow::Result<()> {
    let here = segment.mutex::<u64>(&format!("meet {name}"), 0)?;
    let Ok(mut guard) = here.lock() else { bail!("somebody has died on the way") };
    guard.update(|here| *here += 1);
    guard.unlock()?;
    while here.contents().get() < all {
        thread::sleep(POLL);
    }
    Ok(())
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// CPU time of this process so far.
pub(crate) fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}
