//! `lab`: real virtual machines, and what locks between them do.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::Parser;
use crosslock_lab::nested::Nested;
use crosslock_lab::scenarios::{ALL, Extent, Scenario, Setting};
use crosslock_lab::{Outcome, table};

/// Runs scenarios on real virtual machines, and prints a table of what they came to.
///
/// Exit status: 0 all is as it must be, 1 something is not, 2 it could not be done.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Args {
    /// `setup` installs what the lab needs, `list` tells which scenarios there are; or scenarios, all of them otherwise
    names: Vec<String>,
    /// Less of each, and not all of them: what every change should pass
    #[arg(long)]
    quick: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Boot an emulated machine that has KVM, and run all this inside, with guests that KVM runs
    #[arg(long, conflicts_with = "inside")]
    nested: bool,
    /// This is inside, and `--nested` outside
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    let done = match args.names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["setup"] => setup(),
        ["list"] => list(),
        _ => run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn setup() -> anyhow::Result<bool> {
    vmlab::setup::run(&vmlab::Cache::new()?)?;
    Ok(true)
}

fn list() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    for Scenario { name, about, .. } in ALL {
        writeln!(out, "{name:12} {about}")?;
    }
    Ok(true)
}

fn run(args: &Args) -> anyhow::Result<bool> {
    if let Some(unknown) = args.names.iter().find(|name| ALL.iter().all(|scenario| scenario.name != **name)) {
        bail!("there is no scenario {unknown}; `lab list` tells which there are");
    }
    let is_wanted = |scenario: &&Scenario| match args.names.is_empty() {
        true => !args.quick || scenario.is_quick,
        false => args.names.iter().any(|name| name == scenario.name),
    };
    let extent = if args.quick { Extent::Quick } else { Extent::Full };
    let setting = Setting { extent, is_nested: args.inside };
    let mut nested = args.nested.then(Nested::default);
    let mut outcomes = Vec::new();
    let mut broken = Vec::new();
    for scenario in ALL.iter().filter(is_wanted) {
        let start = Instant::now();
        eprintln!("{}: {}", scenario.name, scenario.about);
        if scenario.is_mixed && (args.nested || args.inside) {
            eprintln!("{}: left out, because KVM runs guests of one architecture only", scenario.name);
            continue;
        }
        let done = match &mut nested {
            Some(nested) => nested.run(scenario, extent),
            None => scenario.run(setting),
        };
        match done {
            Ok(found) => outcomes.extend(found),
            Err(error) => {
                eprintln!("{}: {error:#}", scenario.name);
                broken.push(scenario.name);
            }
        }
        eprintln!("{}: {:.0} s", scenario.name, start.elapsed().as_secs_f64());
    }
    print(args, &outcomes)?;
    if !broken.is_empty() {
        bail!("could not be done: {}", broken.join(", "));
    }
    Ok(outcomes.iter().all(|outcome| outcome.is_good))
}

fn print(args: &Args, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        for outcome in outcomes {
            serde_json::to_writer(&mut out, outcome)?;
            writeln!(out)?;
        }
    } else {
        writeln!(out, "{}", table(outcomes))?;
    }
    Ok(())
}
