//! What came of a step.

use std::time::Duration;

use crosslock_baremetal::PASSED;
use crosslock_baremetal::report::{Boot, Check, Line, Run};
use serde::Serialize;

use super::machines::Place;
use super::plan::{Expect, Step};

/// A step that was run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub step: String,
    /// Where.
    pub place: Place,
    /// The kernel's command line.
    pub options: String,
    /// What the kernel found at boot.
    pub boot: Option<Boot>,
    /// Its checks.
    pub checks: Vec<Check>,
    /// Its loads.
    pub runs: Vec<Run>,
    /// From the start of its machine to its end.
    pub took: Duration,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// All that came over the serial port.
    #[serde(skip)]
    pub serial: String,
}

/// Whether a step came out as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did.
    Passed,
    /// It did not, because of this.
    Failed(Vec<String>),
}

impl Outcome {
    /// Reads what the kernel said, and judges it.
    pub(super) fn new(step: &Step, status: Option<i32>, serial: String, took: Duration) -> Self {
        let mut outcome = Self {
            step: step.name.clone(),
            place: step.place,
            options: step.options.to_string(),
            boot: None,
            checks: Vec::new(),
            runs: Vec::new(),
            took,
            verdict: Verdict::Passed,
            serial,
        };
        let mut problems = Vec::new();
        let mut failures = None;
        for line in outcome.serial.lines().filter(|line| line.starts_with('{')) {
            match serde_json::from_str(line) {
                Ok(Line::Boot(boot)) => outcome.boot = Some(boot),
                Ok(Line::Check(check)) => outcome.checks.push(check),
                Ok(Line::Run(run)) => outcome.runs.push(run),
                Ok(Line::End { failures: count }) => failures = Some(count),
                Ok(other) => problems.push(format!("a report that nobody knows: {other:?}")),
                Err(error) => problems.push(format!("{error} in {line}")),
            }
        }
        let passed = i32::try_from(2 * PASSED + 1).ok();
        match failures {
            None => problems.push(format!("the kernel did not come to its end (status {status:?})")),
            Some(_) if status == passed => {}
            Some(count) => problems.push(format!("{count} failures, status {status:?}")),
        }
        if outcome.boot.is_none() {
            problems.push("the kernel did not say what it found".into());
        }
        for check in outcome.checks.iter().filter(|check| !check.passed) {
            problems.push(format!("{} {}: {}", check.name, check.lock, check.seen));
        }
        for run in outcome.runs.iter().filter(|run| run.violations != 0 && run.lock != "broken") {
            problems.push(format!("{} {}: {} violations", run.lock, run.form, run.violations));
        }
        if step.expect == Expect::Fails {
            problems = if problems.is_empty() { vec!["a control has not failed".into()] } else { Vec::new() };
        } else {
            problems.extend(step.expect.problems(&outcome));
        }
        if !problems.is_empty() {
            outcome.verdict = Verdict::Failed(problems);
        }
        outcome
    }

    /// Sections in a second under `lock`, all CPUs together; `None` if it was not measured.
    #[must_use]
    pub fn rate(&self, lock: &str) -> Option<f64> {
        let run = self.runs.iter().find(|run| run.lock == lock)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
        (run.ns != 0).then(|| run.sections as f64 * 1e9 / run.ns as f64)
    }
}
