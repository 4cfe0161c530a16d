//! The two-lock ping-pong: whoever acquires a lock gives up the other.

use std::time::{Duration, Instant};

use anyhow::bail;
use crosslock::crosslock_core::primitive::{Ordering, spin_hint};
use crosslock::crosslock_core::{Event, RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{Segment, SegmentContext, SpinMutex};
use crosslock_lab::Said;

use crate::{say, wait_for_start};

/// Write or read messages under two locks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The algorithm
    lock: String,
    /// Read; otherwise write. The writer is started first
    #[arg(long)]
    read: bool,
    /// How many
    #[arg(long)]
    rounds: u64,
    /// How long each of the two has one of the first messages, in microseconds: so long that the other falls asleep. Who wakes is
    /// slower than who spins, so from then on both sleep
    #[arg(long, default_value_t = 0)]
    hold_us: u64,
}

pub(crate) fn run(segment: &Segment, args: &Args) -> anyhow::Result<()> {
    match args.lock.as_str() {
        "tas" => play::<RawTas>(segment, args),
        "ticket" => play::<RawTicket>(segment, args),
        "mcs" => play::<RawMcs>(segment, args),
        "qspinlock" => play::<RawQSpin>(segment, args),
        "pvqspinlock" => play::<RawPvQSpin>(segment, args),
        other => bail!("there is no ping-pong under {other}"),
    }
}

/// How many messages are kept for a while.
const HELD: u64 = 20;

fn play<L: RawLock<SegmentContext>>(segment: &Segment, args: &Args) -> anyhow::Result<()> {
    let lock = |what| -> anyhow::Result<SpinMutex<u64, L>> {
        Ok(segment.spin_mutex(&format!("{what} {}", args.lock), 0)?)
    };
    let (empty, full, cx) = (lock("empty")?, lock("full")?, segment.context()?);
    // At the start it is as if the writer had taken the message out of a full place; at the end it is the same.
    if !args.read {
        let _ = full.raw().try_acquire(cx);
    }
    wait_for_start()?;
    let (mine, others) = if args.read { (&full, &empty) } else { (&empty, &full) };
    let message = &empty.contents().words()[0];
    let hold = Duration::from_micros(args.hold_us);
    let is_asleep = args.hold_us > 0;
    let sleeps = || if is_asleep { segment.counters()[Event::PvWaitHead.index()] } else { 0 };
    let mut slept_before = sleeps();
    let (mut out_of_order, mut last, mut trips) = (0, Instant::now(), Vec::new());
    for round in 1..=args.rounds {
        mine.raw().acquire(cx)?;
        if args.read {
            out_of_order += u64::from(message.load(Ordering::Relaxed) != round);
        } else {
            message.store(round, Ordering::Relaxed);
        }
        let now = Instant::now();
        let slept = sleeps();
        if !is_asleep || slept >= slept_before + 2 {
            trips.push(now - last);
        }
        (last, slept_before) = (now, slept);
        while round <= HELD && now.elapsed() < hold {
            spin_hint();
        }
        // SAFETY: it is held, and the right to release it came with the other (at first: from the start).
        unsafe { others.raw().release(cx) }?;
    }
    trips.sort_unstable();
    let measured = trips.len() as u64;
    let median_us = trips.get(trips.len() / 2).map_or(0.0, |trip| trip.as_secs_f64() * 1e6);
    say(&Said::Played { rounds: args.rounds, out_of_order, median_us, measured })
}
