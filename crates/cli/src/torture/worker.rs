//! One worker: takes the lock, does a critical section, gives it up, until its time is over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crosslock::Segment;
use crosslock_core::primitive::spin_hint;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::arena::Visitor;
use super::subject::Subject;
use crate::prng::Prng;

/// What a worker shall do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Mean pauses inside.
    pub(crate) cs: u32,
    /// Mean pauses outside.
    pub(crate) ncs: u32,
    pub(crate) seed: u64,
}

/// What a worker did.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) acquisitions: u64,
    pub(crate) cpu: Duration,
    pub(crate) elapsed: Duration,
    /// Waits for the lock, in nanoseconds.
    pub(crate) waits: Histogram<u64>,
}

/// One section in so many is a hundred times longer than the others.
const LONG_ONE_IN: u64 = 1024;
const LONG_FACTOR: u32 = 100;

/// Uniform in `0..=2 * mean`.
fn about(random: &mut Prng, mean: u32) -> u32 {
    u32::try_from(random.below(2 * u64::from(mean) + 1)).unwrap_or(u32::MAX)
}

fn section(random: &mut Prng, mean: u32) -> u32 {
    let factor = if random.below(LONG_ONE_IN) == 0 { LONG_FACTOR } else { 1 };
    about(random, mean).saturating_mul(factor)
}

/// Runs in the calling thread, as a participant of `segment`, until `is_over` says so, which is told the time that has
/// passed. With a `serial` number other than 0 it may be killed.
pub(crate) fn run<S: Subject>(
    segment: &Segment,
    serial: usize,
    load: Load,
    is_over: impl Fn(&S, Duration) -> bool,
) -> anyhow::Result<Tally> {
    let subject = S::open(segment)?;
    let slot = segment.register().context("a worker needs a participant slot")?.index();
    let me = Visitor { slot, serial };
    let mut random = Prng::seeded(load.seed);
    let mut waits = Histogram::new(3)?;
    let mut acquisitions = 0;
    let (cpu, start) = (thread_cpu(), Instant::now());
    let mut now = start;
    while !is_over(&subject, now - start) {
        let (pauses, pause) = (section(&mut random, load.cs), about(&mut random, load.ncs));
        let asked = Instant::now();
        now = subject.enter(
            |arena| arena.repair(Some(monotonic_ns())),
            |arena| {
                let now = Instant::now();
                arena.visit(me, pauses);
                now
            },
        )?;
        acquisitions += 1;
        waits.record(u64::try_from((now - asked).as_nanos()).unwrap_or(u64::MAX))?;
        for _ in 0..pause {
            spin_hint();
        }
    }
    let cpu = thread_cpu().saturating_sub(cpu);
    Ok(Tally { acquisitions, cpu, elapsed: start.elapsed(), waits })
}

/// On the clock that all processes share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs())
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A [`Tally`] on its way from a worker process.
#[derive(Serialize, Deserialize)]
pub(crate) struct Message {
    acquisitions: u64,
    cpu: Duration,
    elapsed: Duration,
    waits: Vec<u8>,
}

impl Tally {
    pub(crate) fn to_message(&self) -> anyhow::Result<Message> {
        let Self { acquisitions, cpu, elapsed, ref waits } = *self;
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(waits, &mut bytes)?;
        Ok(Message { acquisitions, cpu, elapsed, waits: bytes })
    }

    pub(crate) fn from_message(message: &Message) -> anyhow::Result<Self> {
        let Message { acquisitions, cpu, elapsed, ref waits } = *message;
        let waits = Deserializer::new().deserialize(&mut waits.as_slice())?;
        Ok(Self { acquisitions, cpu, elapsed, waits })
    }
}
