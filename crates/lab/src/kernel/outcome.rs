//! What came of a step.

use std::time::Duration;

use crosslock_baremetal::report::{Boot, Check, Line, Run};
use crosslock_baremetal::{PASSED, exit_status};
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
    /// The kernel's command line; empty where no kernel ran.
    pub options: String,
    /// What the kernel found at boot.
    pub boot: Option<Boot>,
    /// Its checks.
    pub checks: Vec<Check>,
    /// Its loads.
    pub runs: Vec<Run>,
    /// CPUs that had to be called twice, as the kernel said it.
    pub called_again: Vec<String>,
    /// From the start of its machine to its end.
    pub took: Duration,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// All that came over the serial port, or that the tests said.
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
            called_again: Vec::new(),
            took,
            verdict: Verdict::Passed,
            serial,
        };
        let again = outcome.serial.lines().filter(|line| line.contains("called again"));
        outcome.called_again = again.map(str::to_owned).collect();
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
        let passed = Some(exit_status(PASSED));
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

    /// What came of tests that need no kernel.
    pub(super) fn of_tests(
        step: &Step,
        check: Check,
        problem: Option<String>,
        serial: String,
        took: Duration,
    ) -> Self {
        Self {
            step: step.name.clone(),
            place: step.place,
            options: String::new(),
            boot: None,
            checks: vec![check],
            runs: Vec::new(),
            called_again: Vec::new(),
            took,
            verdict: problem.map_or(Verdict::Passed, |problem| Verdict::Failed(vec![problem])),
            serial,
        }
    }

    /// Sections in a second under `lock`, of all CPUs at once: the median of the rounds. `None` if it was not measured.
    #[must_use]
    pub fn rate(&self, lock: &str) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
        let rate = |run: &Run| run.crowded as f64 * 1e9 / run.ns.max(1) as f64;
        let mut rates: Vec<f64> = self.runs_of(lock).map(rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }

    /// The loads of `lock`.
    pub fn runs_of(&self, lock: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.lock == lock)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Effort, plan};
    use super::*;

    const STATUS: Option<i32> = Some(33);
    const BOOT: &str = r#"{"boot":{"hypervisor":"KVMKVMKVM","cpus":2,"clock_khz":1,"unhalt":true,"steal_time":true,"chosen":"pvqspinlock","reason":"waiters can be woken"}}"#;
    const END: &str = r#"{"end":{"failures":0}}"#;

    fn step(expect: Expect) -> Step {
        Step { expect, ..plan(Effort::Small).remove(0) }
    }

    fn run(lock: &str, sections: u64, halts: u64, kicks: u64, violations: u64) -> String {
        format!(
            r#"{{"run":{{"lock":"{lock}","form":"lock","cpus":2,"sections":{sections},"crowded":{sections},"interrupts":0,"violations":{violations},"ns":1000,"least":1,"most":1,"ticks":1,"halts":{halts},"kicks":{kicks},"events":{{}}}}}}"#
        )
    }

    fn judge(expect: Expect, status: Option<i32>, lines: &[&str]) -> Verdict {
        Outcome::new(&step(expect), status, lines.join("\n"), Duration::ZERO).verdict
    }

    /// Why it failed.
    fn refusal(expect: Expect, status: Option<i32>, lines: &[&str]) -> String {
        match judge(expect, status, lines) {
            Verdict::Passed => panic!("passed: {lines:?}"),
            Verdict::Failed(problems) => problems.join("; "),
        }
    }

    #[test]
    fn a_kernel_that_says_all_is_well_passes() {
        let good = run("tas", 5, 0, 0, 0);
        assert_eq!(judge(Expect::Sections(5), STATUS, &[BOOT, "words", &good, END]), Verdict::Passed);
    }

    #[test]
    fn silence_garbage_and_bad_ends_fail() {
        assert!(refusal(Expect::Passes, STATUS, &[]).contains("did not come to its end"));
        assert!(refusal(Expect::Passes, None, &[BOOT, END]).contains("status None"));
        assert!(refusal(Expect::Passes, Some(35), &[BOOT, END]).contains("status Some(35)"));
        assert!(refusal(Expect::Passes, STATUS, &[END]).contains("did not say what it found"));
        assert!(refusal(Expect::Passes, STATUS, &[BOOT, r#"{"run":{"lo"#, END]).contains("EOF"));
        assert!(refusal(Expect::Fails, STATUS, &[BOOT, END]).contains("has not failed"));
    }

    #[test]
    fn violations_and_failed_checks_fail_whatever_the_kernel_thinks_of_them() {
        let bad = run("mcs", 5, 0, 0, 1);
        assert!(refusal(Expect::Passes, STATUS, &[BOOT, &bad, END]).contains("mcs lock: 1 violations"));
        let check = r#"{"check":{"name":"kick","lock":"","passed":false,"seen":"nothing"}}"#;
        assert!(refusal(Expect::Passes, STATUS, &[BOOT, check, END]).contains("nothing"));
        assert!(
            refusal(Expect::Sections(6), STATUS, &[BOOT, &run("tas", 5, 0, 0, 0), END]).contains("only 5")
        );
    }

    #[test]
    fn another_choice_or_another_lock_than_the_chosen_one_fails() {
        use crosslock_baremetal::options::Lock;
        let used = run("pvqspinlock", 5, 0, 0, 0);
        let right = Expect::Chooses(Lock::Paravirtual, "woken");
        assert_eq!(judge(right, STATUS, &[BOOT, &used, END]), Verdict::Passed);
        assert!(refusal(Expect::Chooses(Lock::Tas, "woken"), STATUS, &[BOOT, &used, END]).contains("chose"));
        assert!(
            refusal(Expect::Chooses(Lock::Paravirtual, "else"), STATUS, &[BOOT, &used, END])
                .contains("chose")
        );
        assert!(refusal(right, STATUS, &[BOOT, &run("tas", 5, 0, 0, 0), END]).contains("did not use"));
    }

    #[test]
    fn rates_and_kicks_are_compared() {
        let slow = [run("ticket", 10, 0, 0, 0), run("qspinlock", 10, 0, 0, 0)];
        let judged = |pv: String| judge(Expect::Pays(20.0), STATUS, &[BOOT, &slow[0], &slow[1], &pv, END]);
        assert_eq!(judged(run("pvqspinlock", 200, 9, 9, 0)), Verdict::Passed);
        assert_ne!(judged(run("pvqspinlock", 199, 9, 9, 0)), Verdict::Passed);
        assert_ne!(judged(run("pvqspinlock", 200, 9, 20, 0)), Verdict::Passed);
        assert_ne!(judged(run("pvqspinlock", 200, 0, 0, 0)), Verdict::Passed, "nobody has halted");
        assert!(refusal(Expect::Keeps(0.8), STATUS, &[BOOT, END]).contains("not measured"));
    }
}
