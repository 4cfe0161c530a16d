//! One worker: takes the lock, does a critical section, gives it up, until its time is over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crosslock::{Segment, SegmentContext};
use crosslock_core::RawLock;
use crosslock_core::primitive::spin_hint;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::arena::{self, Inside};
use crate::interrupt::Interrupt;
use crate::prng::Prng;

/// What a worker shall do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) duration: Duration,
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
    pub(crate) violations: u64,
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

/// Runs in the calling thread, as a participant of `segment`.
pub(crate) fn run<L: RawLock<SegmentContext>>(
    segment: &Segment,
    load: Load,
    interrupt: &Interrupt,
) -> anyhow::Result<Tally> {
    let mutex = segment.open_spin_mutex::<arena::Words, L>(arena::NAME)?;
    let me = segment.register().context("a worker needs a participant slot")?.index();
    let mut random = Prng::seeded(load.seed);
    let mut waits = Histogram::new(3)?;
    let (mut acquisitions, mut violations) = (0, 0);
    let (cpu, start) = (thread_cpu(), Instant::now());
    let mut now = start;
    while now - start < load.duration && !interrupt.is_raised() {
        let (pauses, pause) = (section(&mut random, load.cs), about(&mut random, load.ncs));
        let asked = Instant::now();
        let guard = mutex.lock()?;
        now = Instant::now();
        violations += Inside::new(&guard).visit(me, pauses);
        guard.unlock()?;
        acquisitions += 1;
        waits.record(u64::try_from((now - asked).as_nanos()).unwrap_or(u64::MAX))?;
        for _ in 0..pause {
            spin_hint();
        }
    }
    let cpu = thread_cpu().saturating_sub(cpu);
    Ok(Tally { acquisitions, violations, cpu, elapsed: start.elapsed(), waits })
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A [`Tally`] on its way from a worker process.
#[derive(Serialize, Deserialize)]
pub(crate) struct Message {
    acquisitions: u64,
    violations: u64,
    cpu: Duration,
    elapsed: Duration,
    waits: Vec<u8>,
}

impl Tally {
    pub(crate) fn to_message(&self) -> anyhow::Result<Message> {
        let Self { acquisitions, violations, cpu, elapsed, ref waits } = *self;
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(waits, &mut bytes)?;
        Ok(Message { acquisitions, violations, cpu, elapsed, waits: bytes })
    }

    pub(crate) fn from_message(message: &Message) -> anyhow::Result<Self> {
        let Message { acquisitions, violations, cpu, elapsed, ref waits } = *message;
        let waits = Deserializer::new().deserialize(&mut waits.as_slice())?;
        Ok(Self { acquisitions, violations, cpu, elapsed, waits })
    }
}
