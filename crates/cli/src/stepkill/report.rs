//! What became of the victims, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::audit::Findings;
use super::scenario::Scenario;
use crate::exit::Verdict;

/// Failures of one scenario that are told; after so many it is given up.
pub(super) const ENOUGH: usize = 3;

/// A point at which something is wrong.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    /// For `--at`.
    pub(super) at: String,
    pub(super) place: String,
    pub(super) told: Vec<String>,
}

/// What became of one scenario.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) scenario: &'static str,
    pub(super) control: bool,
    /// There are.
    pub(super) kill_points: usize,
    /// Have been tried.
    pub(super) killed: usize,
    /// Would have been tried, but that victim took a shorter path.
    pub(super) missed: usize,
    pub(super) stuck: u32,
    pub(super) violations: u32,
    pub(super) leaks: u32,
    pub(super) recoveries: u32,
    pub(super) time_s: f64,
    /// Whether all is as it should be: for a control that must be caught, that it was.
    pub(super) good: bool,
    pub(super) failures: Vec<Failure>,
    /// With `--at`: where the victim stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
}

impl Row {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.name,
            control: scenario.is_control(),
            kill_points: 0,
            killed: 0,
            missed: 0,
            stuck: 0,
            violations: 0,
            leaks: 0,
            recoveries: 0,
            time_s: 0.0,
            good: false,
            failures: Vec::new(),
            place: None,
        }
    }

    /// Adds what was found when the victim was killed at `at`.
    pub(super) fn add(&mut self, at: impl fmt::Display, place: String, findings: Findings) {
        self.stuck += findings.stuck;
        self.violations += findings.violations;
        self.leaks += findings.leaks;
        self.recoveries += findings.recoveries;
        if findings.is_bad() {
            self.failures.push(Failure { at: at.to_string(), place, told: findings.told });
        }
    }

    /// Whether something is wrong with the lock.
    pub(super) fn is_caught(&self) -> bool {
        !self.failures.is_empty()
    }
}

/// What became of all; serialises to the object that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) stride: usize,
    pub(super) scenarios: Vec<Row>,
    pub(super) interrupted: bool,
    pub(super) verdict: &'static str,
}

impl Report {
    pub(super) fn new(stride: usize, scenarios: Vec<Row>, interrupted: bool) -> Self {
        let verdict = if scenarios.iter().all(|row| row.good) { "ok" } else { "failed" };
        Self { stride, scenarios, interrupted, verdict }
    }

    pub(super) fn verdict(&self) -> Verdict {
        if self.verdict == "ok" { Verdict::Good } else { Verdict::Bad }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["POINTS", "KILLED", "STUCK", "WRONG", "LEAKS", "RECOVERED", "SECONDS"];
        write!(f, "{:<28}", "SCENARIO")?;
        for heading in headings {
            write!(f, "{heading:>10}")?;
        }
        writeln!(f)?;
        for row in &self.scenarios {
            write!(f, "{:<28}{:>10}{:>10}", row.scenario, row.kill_points, row.killed)?;
            write!(f, "{:>10}{:>10}{:>10}", row.stuck, row.violations, row.leaks)?;
            writeln!(f, "{:>10}{:>10.1}", row.recoveries, row.time_s)?;
        }
        for row in &self.scenarios {
            for Failure { at, place, told } in &row.failures {
                let caught = if row.good { "caught" } else { "FAILED" };
                writeln!(
                    f,
                    "{caught}: --scenario {} --at {at} ({place}): {}",
                    row.scenario,
                    told.join("; ")
                )?;
            }
            if !row.good && row.failures.is_empty() {
                let why = if row.killed == 0 { "no victim was killed" } else { "the control was not caught" };
                writeln!(f, "FAILED: {}: {why}", row.scenario)?;
            }
            if let Some(place) = &row.place {
                writeln!(f, "{}: killed at {place}", row.scenario)?;
            }
            if row.missed > 0 {
                writeln!(f, "{}: {} points were not met again", row.scenario, row.missed)?;
            }
        }
        match self.verdict {
            "ok" => writeln!(f, "OK: whoever was killed, the others went on"),
            _ => writeln!(f, "FAILED: this lock does not survive its users"),
        }
    }
}
