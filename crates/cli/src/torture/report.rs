//! What a torture run found, for people and for programs.

use std::fmt;
use std::time::Duration;

use crosslock_core::Event;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Scope;
use super::worker::Tally;
use crate::exit::Verdict;
use crate::stats::jain;

/// The result of a run; serialises to the object that `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) lock: &'static str,
    pub(crate) scope: Scope,
    pub(crate) workers: usize,
    pub(crate) duration_s: f64,
    pub(crate) acquisitions: u64,
    pub(crate) violations: u64,
    pub(crate) lost_updates: u64,
    pub(crate) throughput_ops_per_s: f64,
    pub(crate) jain: f64,
    pub(crate) acquire_ns: Percentiles,
    pub(crate) cpu_s: f64,
    pub(crate) events: Map<String, Value>,
    pub(crate) verdict: String,
    #[serde(skip)]
    pub(crate) stuck: usize,
}

/// Of the time that an acquire took, in nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Percentiles {
    fn of(waits: &Histogram<u64>) -> Self {
        Self {
            p50: waits.value_at_quantile(0.5),
            p99: waits.value_at_quantile(0.99),
            p999: waits.value_at_quantile(0.999),
            max: waits.max(),
        }
    }
}

/// The events that happened in between.
pub(crate) fn events(before: &[u64; Event::COUNT], after: &[u64; Event::COUNT]) -> Map<String, Value> {
    let change = |event: &Event| after[event.index()].wrapping_sub(before[event.index()]);
    Event::ALL.iter().map(|event| (event.name().to_owned(), change(event).into())).collect()
}

/// Those that happened.
pub(crate) fn seen(events: &Map<String, Value>) -> String {
    let seen = events.iter().filter(|(_, count)| count.as_u64() != Some(0));
    let seen: Vec<_> = seen.map(|(name, count)| format!("{name} {count}")).collect();
    if seen.is_empty() { "none".to_owned() } else { seen.join(", ") }
}

impl Report {
    pub(crate) fn new(
        (lock, scope): (&'static str, Scope),
        tallies: &[Tally],
        stuck: usize,
        (violations, lost_updates): (u64, u64),
        events: Map<String, Value>,
    ) -> anyhow::Result<Self> {
        let mut waits = Histogram::new(3)?;
        for tally in tallies {
            waits.add(&tally.waits)?;
        }
        let acquisitions = tallies.iter().map(|tally| tally.acquisitions).sum();
        let shares: Vec<_> = tallies.iter().map(|tally| tally.acquisitions as f64).collect();
        let elapsed = tallies.iter().map(|tally| tally.elapsed).max().unwrap_or(Duration::ZERO).as_secs_f64();
        let verdict = match (violations, lost_updates, stuck) {
            (0, 0, 0) => "ok",
            (_, _, 1..) => "stuck",
            _ => "failed",
        };
        Ok(Self {
            lock,
            scope,
            workers: tallies.len() + stuck,
            duration_s: elapsed,
            acquisitions,
            violations,
            lost_updates,
            throughput_ops_per_s: if elapsed > 0.0 { acquisitions as f64 / elapsed } else { 0.0 },
            jain: jain(&shares),
            acquire_ns: Percentiles::of(&waits),
            cpu_s: tallies.iter().map(|tally| tally.cpu).sum::<Duration>().as_secs_f64(),
            events,
            verdict: verdict.to_owned(),
            stuck,
        })
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.verdict == "ok" { Verdict::Good } else { Verdict::Bad }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles { p50, p99, p999, max } = self.acquire_ns;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<14}{value}");
        line(f, "lock", format!("{}, {} {}", self.lock, self.workers, self.scope))?;
        line(f, "duration", format!("{:.2} s, {:.2} CPU seconds", self.duration_s, self.cpu_s))?;
        line(f, "acquisitions", format!("{} ({:.0}/s)", self.acquisitions, self.throughput_ops_per_s))?;
        line(f, "fairness", format!("{:.3} (Jain: 1 = all workers got the same)", self.jain))?;
        line(f, "acquire", format!("p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns, max {max} ns"))?;
        line(f, "events", seen(&self.events))?;
        line(f, "violations", self.violations.to_string())?;
        line(f, "lost updates", self.lost_updates.to_string())?;
        match &*self.verdict {
            "ok" => writeln!(f, "OK: nobody was inside together with another, and no update was lost"),
            "stuck" => writeln!(f, "STUCK: {} workers did not come back from the lock", self.stuck),
            _ => writeln!(f, "FAILED: this lock does not exclude"),
        }
    }
}
