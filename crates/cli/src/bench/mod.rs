//! `crosslock bench`: how fast and how fair are the locks, ours and others, on this machine?

mod contended;
mod contestant;
mod figure;
mod machine;
mod plan;
mod pthread;
mod report;
mod roster;
mod uncontended;

use std::io::{Write as _, stdout};
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;

use self::machine::Machine;
use self::plan::{Job, Point, Workload};
use self::report::{Measured, Report};
use self::roster::{Competitor, ROSTER};
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::progress;

/// Measure locks, ours beside others, in the same run
///
/// At every point of a workload, each lock runs once in every round, in an order that rotates, so that what
/// disturbs the machine disturbs all. The floors are what no lock can do without: one compare-exchange and
/// one store, or two compare-exchanges.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The locks; all if not given
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = roster::parser())]
    locks: Vec<&'static Competitor>,
    /// How many threads want the lock
    #[arg(long, value_delimiter = ',', value_name = "N,...", default_value = "1,2,4,8")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    threads: Vec<u16>,
    /// What they do
    #[arg(long, value_enum, value_delimiter = ',', value_name = "W,...", ignore_case = true)]
    #[arg(default_value = "W1,W2,W3,W7")]
    workload: Vec<Workload>,
    /// How often every lock runs at every point
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each time; contended locks twice: 200ms, 2s
    #[arg(long, default_value = "200ms", value_parser = parse_duration)]
    duration: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let interrupt = Interrupt::install()?;
    let report = measure(args, &interrupt)?;
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    if report.interrupted {
        bail!("interrupted: the figures are of the rounds that were whole by then");
    }
    Ok(Verdict::Good)
}

fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let plan: Vec<_> =
        args.workload.iter().map(|&workload| (workload, workload.points(&args.threads))).collect();
    let runs = plan.iter().map(|(workload, points)| points.len() * args.field(*workload).len());
    let steps = runs.sum::<usize>() as u64 * u64::from(args.rounds);
    let bar = progress::bar(steps, "bench");
    let mut workloads = Vec::new();
    for (workload, points) in plan {
        let mut measured = Vec::new();
        for point in points {
            bar.set_message(format!("{}, {}", workload.name(), point.name));
            let rounds = args.run_point(&point, &args.field(workload), interrupt, &bar)?;
            if !rounds.is_empty() {
                measured.push(Measured { point, field: args.field(workload), rounds });
            }
        }
        workloads.push((workload, measured));
    }
    bar.finish_and_clear();
    Ok(Report {
        machine: Machine::here(),
        rounds: args.rounds,
        duration_ms: args.duration.as_secs_f64() * 1e3,
        interrupted: interrupt.is_raised(),
        workloads,
    })
}

impl Args {
    /// Who takes part in `workload`, in the order of the roster.
    fn field(&self, workload: Workload) -> Vec<&'static Competitor> {
        let wanted = |competitor: &&Competitor| {
            // The floors are what uncontended locks are compared with.
            self.locks.is_empty()
                || !competitor.is_lock
                || self.locks.iter().any(|lock| lock.name == competitor.name)
        };
        ROSTER.iter().filter(wanted).filter(|competitor| workload.admits(competitor)).collect()
    }

    /// All rounds at one point, or as many as were whole before the interrupt.
    fn run_point(
        &self,
        point: &Point,
        field: &[&Competitor],
        interrupt: &Interrupt,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<Vec<figure::Sample>>> {
        let mut rounds = Vec::new();
        for round in 0..self.rounds as usize {
            let mut samples = vec![figure::Sample::new(); field.len()];
            for turn in 0..field.len() {
                let index = (round + turn) % field.len();
                samples[index] = match &point.job {
                    Job::Hot => (field[index].hot)(self.duration, interrupt),
                    Job::Cold => (field[index].cold)(self.duration, interrupt),
                    Job::Contended(load) => (field[index].contended)(load, self.duration, interrupt)?,
                };
                if interrupt.is_raised() {
                    return Ok(rounds);
                }
                bar.inc(1);
            }
            rounds.push(samples);
        }
        Ok(rounds)
    }
}
