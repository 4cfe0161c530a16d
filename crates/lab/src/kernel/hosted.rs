//! The tests of `crosslock-kernel` on its hosted platform: threads as CPUs, signals as interrupts.

use std::process::{Command, Stdio};
use std::time::Instant;

use crosslock_baremetal::report::{Check, text};
use vmlab::Error;

use super::outcome::Outcome;
use super::plan::Step;

/// What the harness of Rust's tests said of all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds up the lines "test result: ok. 3 passed; 0 failed; ...", one for each program of tests.
    fn read(said: &str) -> Self {
        let results = said.lines().filter_map(|line| line.strip_prefix("test result: "));
        let parts = results.flat_map(|result| result.split([';', '.']));
        let mut tally = Self::default();
        for part in parts {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => tally.passed += count.parse().unwrap_or(0),
                Some((count, "failed")) => tally.failed += count.parse().unwrap_or(0),
                _ => {}
            }
        }
        tally
    }

    fn problem(self, cargo_succeeded: bool) -> Option<String> {
        match self {
            Self { failed: 1.., .. } => Some(format!("{} of the tests failed", self.failed)),
            Self { passed: 0, .. } => Some("no test was run".into()),
            _ if !cargo_succeeded => Some("cargo failed, though the tests passed".into()),
            _ => None,
        }
    }
}

/// Compiles and runs them.
pub(super) fn run(step: &Step) -> Result<Outcome, Error> {
    let start = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let features = if step.checked { "hosted,debug-checks" } else { "hosted" };
    let output = Command::new(cargo)
        .args(["test", "--quiet", "--package", "crosslock-kernel", "--features", features])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::NotRun { program: "cargo".into(), error })?;
    let [mut said, errors] =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
    let tally = Tally::read(&said);
    let problem = tally.problem(output.status.success());
    let check = Check {
        name: text(format_args!("tests")),
        lock: text(format_args!("")),
        passed: problem.is_none(),
        seen: text(format_args!("{} tests passed", tally.passed)),
    };
    said += &errors;
    Ok(Outcome::of_tests(step, check, problem, said, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_and_silence_is_no_success() {
        let said = "running 3 tests\n...\ntest result: ok. 3 passed; 0 failed; 0 ignored; finished in 0.01s\n\n\
                    test result: FAILED. 20 passed; 2 failed; 1 ignored\n";
        let tally = Tally::read(said);
        assert_eq!(tally, Tally { passed: 23, failed: 2 });
        assert!(tally.problem(false).unwrap().contains("2 of the tests failed"));
        assert!(Tally::read("error: could not compile").problem(false).unwrap().contains("no test"));
        let good = Tally::read(said.lines().nth(2).unwrap());
        assert_eq!(good.problem(true), None);
        assert!(good.problem(false).unwrap().contains("cargo failed"));
    }
}
