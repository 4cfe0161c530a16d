//! Tables for people.

use comfy_table::Table;
use crosslock_baremetal::options::{Lock, Task};
use crosslock_baremetal::report::Run;

use super::outcome::{Outcome, Verdict};

/// All steps, and how they went.
#[must_use]
pub fn steps(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.set_header(["step", "where", "s", "sections", "violations", ""]);
    for outcome in outcomes {
        let sections: u64 = outcome.runs.iter().map(|run| run.sections + run.interrupts).sum();
        let violations: u64 = outcome.runs.iter().map(|run| run.violations).sum();
        let mut verdict = match &outcome.verdict {
            Verdict::Passed => outcome.checks.last().map_or("passed".into(), |check| check.seen.to_string()),
            Verdict::Failed(problems) => format!("FAILED: {}", problems.join("; ")),
        };
        for line in &outcome.called_again {
            verdict += &format!("; {line}");
        }
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

/// What each lock did in the measurements: sections in a second, the median of the rounds; halts and kicks of all rounds.
#[must_use]
pub fn cost(outcomes: &[Outcome]) -> Table {
    let task = format!("task={}", Task::Throughput);
    let measured: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.options.contains(&task)).collect();
    let mut table = Table::new();
    let columns = measured.iter().map(|outcome| outcome.step.clone());
    table.set_header(std::iter::once("sections/s".to_owned()).chain(columns));
    for lock in Lock::ALL.iter().map(|lock| lock.name()) {
        let cells = measured.iter().map(|outcome| {
            let Some(rate) = outcome.rate(lock) else { return String::new() };
            let sum = |of: fn(&Run) -> u64| outcome.runs_of(lock).map(of).sum::<u64>();
            match (sum(|run| run.halts), sum(|run| run.kicks)) {
                (0, 0) => format!("{rate:.0}"),
                (halts, kicks) => format!("{rate:.0} ({halts} halts, {kicks} kicks)"),
            }
        });
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.add_row(std::iter::once(lock.to_owned()).chain(cells));
        }
    }
    table
}
