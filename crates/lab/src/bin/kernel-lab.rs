//! Runs the bare-metal kernel on real machines, and says what came of it.

use std::process::ExitCode;

use clap::Parser;
use crosslock_lab::kernel::{Effort, Machines, Outcome, Place, Verdict, cost, plan, steps};
use serde::Serialize;

/// Runs every lock, in every form: the tests of the hosted platform, and a small kernel on real machines, emulated and under a
/// KVM that preempts its CPUs.
///
/// Exit status: 0 all is as it should be, 1 it is not, 2 it could not be done. Needs `cargo run -p vmlab -- setup` once.
#[derive(Debug, Parser)]
#[command(name = "kernel-lab")]
struct Cli {
    /// A million sections of each lock in each form, and longer measurements.
    #[arg(long)]
    full: bool,
    /// Only steps whose name or place contains this; can be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// One document of JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// What the kernel says on its serial port, too.
    #[arg(long)]
    verbose: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    passed: bool,
    steps: &'a [Outcome],
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let effort = if cli.full { Effort::Full } else { Effort::Small };
    let mut plan = plan(effort);
    plan.retain(|step| {
        let wanted = |text: &String| step.name.contains(text) || step.place.to_string().contains(text);
        cli.only.is_empty() || cli.only.iter().any(wanted)
    });
    anyhow::ensure!(!plan.is_empty(), "no such step");
    let machines = Machines::new()?;
    let mut outcomes = Vec::new();
    for step in &plan {
        eprintln!("{} ({})", step.name, step.place);
        let outcome = machines.run(step)?;
        if cli.verbose || outcome.verdict != Verdict::Passed {
            eprint!("{}", outcome.serial);
        }
        outcomes.push(outcome);
    }
    let passed = outcomes.iter().all(|outcome| outcome.verdict == Verdict::Passed);
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&Document { passed, steps: &outcomes })?);
    } else {
        println!("{}", steps(&outcomes));
        if outcomes.iter().any(|outcome| matches!(outcome.place, Place::Kvm { .. })) {
            println!("{}", cost(&outcomes));
        }
    }
    Ok(passed)
}
