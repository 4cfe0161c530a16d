//! What scenarios come to, and the table of it.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// One row: what happened to one lock in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// Who took part: `x86-64 + max`.
    pub machines: String,
    /// The algorithm.
    pub lock: String,
    /// Critical sections, messages, kills: what was done.
    pub operations: u64,
    /// Lost updates, sections of two at a time, messages out of order: what must not be.
    pub violations: u64,
    /// From a death to the next owner, in milliseconds.
    pub recovery_ms: Option<f64>,
    /// What else there is to know.
    pub note: String,
    /// Whether it is as it must be.
    pub is_good: bool,
}

impl Outcome {
    /// A good one, with all that need not be said left out.
    #[must_use]
    pub fn new(scenario: &str, machines: &str, lock: &str) -> Self {
        Self {
            scenario: scenario.into(),
            machines: machines.into(),
            lock: lock.into(),
            operations: 0,
            violations: 0,
            recovery_ms: None,
            note: String::new(),
            is_good: true,
        }
    }

    /// With so many operations and violations; bad if there are any of those.
    #[must_use]
    pub fn counts(mut self, operations: u64, violations: u64) -> Self {
        (self.operations, self.violations) = (operations, violations);
        self.is_good &= violations == 0;
        self
    }

    /// With the time that recovery took.
    #[must_use]
    pub fn recovered_after(mut self, time: Duration) -> Self {
        self.recovery_ms = Some(time.as_secs_f64() * 1e3);
        self
    }

    /// With a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Bad, if this does not hold.
    #[must_use]
    pub fn check(mut self, holds: bool) -> Self {
        self.is_good &= holds;
        self
    }
}

/// All of it for people.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["scenario", "machines", "lock", "operations", "violations", "recovery", "", ""]);
    for outcome in outcomes {
        let recovery = outcome.recovery_ms.map_or_else(String::new, |time| format!("{time:.1} ms"));
        let verdict = if outcome.is_good { "ok" } else { "FAILED" };
        table.add_row([
            &outcome.scenario,
            &outcome.machines,
            &outcome.lock,
            &outcome.operations.to_string(),
            &outcome.violations.to_string(),
            &recovery,
            verdict,
            &outcome.note,
        ]);
    }
    for column in 3..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}
