//! Tables for people.

use comfy_table::Table;
use crosslock_baremetal::options::{Lock, Task};

use super::outcome::{Outcome, Verdict};

/// All steps, and how they went.
#[must_use]
pub fn steps(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.set_header(["step", "where", "s", "sections", "violations", ""]);
    for outcome in outcomes {
        let sections: u64 = outcome.runs.iter().map(|run| run.sections + run.interrupts).sum();
        let violations: u64 = outcome.runs.iter().map(|run| run.violations).sum();
        let verdict = match &outcome.verdict {
            Verdict::Passed => outcome.checks.last().map_or("passed".into(), |check| check.seen.to_string()),
            Verdict::Failed(problems) => format!("FAILED: {}", problems.join("; ")),
        };
        table.add_row([
            outcome.step.clone(),
            outcome.place.to_string(),
            format!("{:.1}", outcome.took.as_secs_f64()),
            sections.to_string(),
            violations.to_string(),
            verdict,
        ]);
    }
    table
}

/// What each lock did in the measurements: sections in a second, and how unevenly they fell to the CPUs.
#[must_use]
pub fn cost(outcomes: &[Outcome]) -> Table {
    let task = format!("task={}", Task::Throughput);
    let measured: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.options.contains(&task)).collect();
    let mut table = Table::new();
    let columns = measured.iter().map(|outcome| format!("{} (sections/s)", outcome.step));
    table.set_header(std::iter::once("lock".to_owned()).chain(columns));
    for lock in Lock::ALL.iter().map(|lock| lock.name()) {
        let cells = measured.iter().map(|outcome| {
            let run = outcome.runs.iter().find(|run| run.lock == lock);
            let (Some(run), Some(rate)) = (run, outcome.rate(lock)) else { return String::new() };
            let sleeps = if run.halts == 0 && run.kicks == 0 {
                String::new()
            } else {
                format!("; {} halts, {} kicks", run.halts, run.kicks)
            };
            format!("{rate:.0} (least {}, most {}{sleeps})", run.least, run.most)
        });
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.add_row(std::iter::once(lock.to_owned()).chain(cells));
        }
    }
    table
}
