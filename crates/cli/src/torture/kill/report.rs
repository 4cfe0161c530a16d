//! What a torture run with kills found, for people and for programs.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::herd::{HerdReport, Outcome, Recovery};
use crate::exit::Verdict;
use crate::torture::Scope;
use crate::torture::pthread::PthreadMutex;
use crate::torture::report::seen;
use crate::torture::subject::Subject;

/// The result of a run; serialises to the object that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    lock: &'static str,
    scope: Scope,
    workers: u32,
    #[serde(flatten)]
    figures: Figures,
    leaked_slots: usize,
    recovery_ns: Recovery,
    /// The same of the pthread mutex, if it took turns with the lock.
    pthread: Option<Figures>,
    pthread_recovery_ns: Option<Recovery>,
    /// The lock's recovery by that of the pthread mutex.
    recovery_ratio: Option<Ratio>,
    events: Map<String, Value>,
    verdict: &'static str,
}

/// Of one lock.
#[derive(Debug, Serialize)]
struct Figures {
    duration_s: f64,
    acquisitions: u64,
    throughput_ops_per_s: f64,
    kills: u64,
    kills_per_s: f64,
    /// Deaths that the lock has told of.
    recoveries: u64,
    violations: u64,
    lost_updates: u64,
    stuck: usize,
    is_free: bool,
}

impl Figures {
    fn of(outcome: &Outcome) -> Self {
        let duration_s = outcome.duration.as_secs_f64();
        let per_s = |count: u64| if duration_s > 0.0 { count as f64 / duration_s } else { 0.0 };
        Self {
            duration_s,
            acquisitions: outcome.acquisitions,
            throughput_ops_per_s: per_s(outcome.acquisitions),
            kills: outcome.kills,
            kills_per_s: per_s(outcome.kills),
            recoveries: outcome.deaths,
            // A death that the lock tells of though nobody was killed is one, too.
            violations: outcome.violations + outcome.deaths.saturating_sub(outcome.kills),
            lost_updates: outcome.lost_updates,
            stuck: outcome.stuck,
            is_free: outcome.is_free,
        }
    }

    fn verdict(&self, leaked_slots: usize) -> &'static str {
        match self {
            Self { stuck: 1.., .. } => "stuck",
            Self { violations: 1.., .. } | Self { lost_updates: 1.., .. } => "failed",
            Self { is_free: false, .. } => "left taken",
            _ if leaked_slots > 0 => "leaked",
            _ => "ok",
        }
    }
}

/// Of two recoveries.
#[derive(Debug, Serialize)]
struct Ratio {
    p50: f64,
    p99: f64,
}

impl Ratio {
    /// `None` where there is nothing to compare.
    fn of(lock: &Recovery, reference: &Recovery) -> Option<Self> {
        let by = |figure: u64, reference: u64| (reference > 0).then(|| figure as f64 / reference as f64);
        Some(Self { p50: by(lock.p50, reference.p50)?, p99: by(lock.p99, reference.p99)? })
    }
}

impl Report {
    pub(super) fn new(
        lock: &'static str,
        workers: u32,
        herd: HerdReport,
        events: Map<String, Value>,
    ) -> Self {
        let HerdReport { subject, pthread, leaked_slots } = herd;
        let figures = Figures::of(&subject);
        let verdict = figures.verdict(leaked_slots);
        let pthread_recovery_ns = pthread.as_ref().map(|outcome| outcome.recovery);
        let recovery_ratio =
            pthread_recovery_ns.as_ref().and_then(|reference| Ratio::of(&subject.recovery, reference));
        Self {
            lock,
            scope: Scope::Processes,
            workers,
            figures,
            leaked_slots,
            recovery_ns: subject.recovery,
            pthread: pthread.as_ref().map(Figures::of),
            pthread_recovery_ns,
            recovery_ratio,
            events,
            verdict,
        }
    }

    /// What the pthread mutex does is its own affair.
    pub(super) fn verdict(&self) -> Verdict {
        if self.verdict == "ok" { Verdict::Good } else { Verdict::Bad }
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<14}{value}")
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { duration_s, acquisitions, throughput_ops_per_s, .. } = self;
        line(f, "duration", format_args!("{duration_s:.2} s"))?;
        line(f, "acquisitions", format_args!("{acquisitions} ({throughput_ops_per_s:.0}/s)"))?;
        let Self { kills, kills_per_s, recoveries, .. } = self;
        line(f, "kills", format_args!("{kills} ({kills_per_s:.0}/s), {recoveries} of them of the owner"))
    }
}

/// In microseconds.
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p99, max } = *self;
        let (p50, p99, max) = (us(p50), us(p99), us(max));
        write!(f, "median {p50:.1} us, p99 {p99:.1} us, max {max:.1} us, of {count}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { violations, lost_updates, stuck, .. } = self.figures;
        line(f, "lock", format_args!("{}, {} {}", self.lock, self.workers, self.scope))?;
        write!(f, "{}", self.figures)?;
        line(f, "recovery", format_args!("{}, from the kill until the next owner ran", self.recovery_ns))?;
        if let (Some(figures), Some(recovery)) = (&self.pthread, self.pthread_recovery_ns) {
            line(f, "by turns with", PthreadMutex::NAME)?;
            let indented = format!("{figures}");
            indented.lines().try_for_each(|figure| writeln!(f, "  {figure}"))?;
            line(f, "  recovery", recovery)?;
            let Figures { violations, lost_updates, stuck, .. } = figures;
            if (*violations, *lost_updates, *stuck) != (0, 0, 0) {
                let wrong = format!("{violations} violations, {lost_updates} lost updates, {stuck} stuck");
                line(f, "  wrong", wrong)?;
            }
        }
        if let Some(Ratio { p50, p99 }) = &self.recovery_ratio {
            line(
                f,
                "ratio",
                format_args!("median {p50:.2}, p99 {p99:.2} (below 1: {} is faster)", self.lock),
            )?;
        }
        line(f, "events", seen(&self.events))?;
        line(f, "violations", violations)?;
        line(f, "lost updates", lost_updates)?;
        line(f, "leaked slots", self.leaked_slots)?;
        match self.verdict {
            "ok" => writeln!(f, "OK: nobody's death let two in, lost an update, or kept the others out"),
            "stuck" => writeln!(f, "STUCK: {stuck} workers did not come back from the lock"),
            "left taken" => writeln!(f, "FAILED: the lock is not free, and nobody lives who could own it"),
            "leaked" => writeln!(f, "FAILED: slots of the dead were not given back"),
            _ => writeln!(f, "FAILED: this lock does not exclude, or hides deaths"),
        }
    }
}
