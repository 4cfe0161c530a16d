//! `crosslock bench`: how fast and how fair are the locks, ours and others, on this machine?

mod arena;
mod contended;
mod contestant;
mod figure;
mod machine;
mod place;
mod plan;
mod probe;
mod processes;
mod pthread;
mod report;
mod roster;
mod uncontended;
mod versus;

use std::io::{Write as _, stdout};
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;

use self::machine::Machine;
use self::plan::{Point, Workload};
pub(crate) use self::processes::{WorkerArgs, run_worker};
use self::report::{Measured, Report};
use self::roster::{Competitor, ROSTER};
use self::versus::Versus;
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::torture::Scope;

/// Measure locks, ours beside others, in the same run
///
/// At every point of a workload, each lock runs once in every round, in an order that rotates, so that what
/// disturbs the machine disturbs all. The floors are what no lock can do without: one compare-exchange and
/// one store, or two compare-exchanges.
///
/// At the end, one lock is compared with the best of std, parking_lot and pthread_mutex, if they took part.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The locks; all if not given
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = roster::parser())]
    locks: Vec<&'static Competitor>,
    /// What wants the lock. The locks of std and parking_lot are no locks for processes: they run among as many
    /// threads then, beside the others
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCOPE,...", default_value = "threads")]
    scope: Vec<Scope>,
    /// How many threads, or processes
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
    /// The lock that is compared with the best of the others at the end
    #[arg(long, value_name = "NAME", default_value = "robust", value_parser = roster::parser())]
    versus: &'static Competitor,
    /// Fail where that lock is slower than the best of them, unfair (Jain below 0.95), or has somebody wait more than
    /// twice as long as parking_lot
    #[arg(long)]
    check: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    args.validate()?;
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
    let failed = args.check && report.versus.is_some_and(|versus| !versus.is_good());
    Ok(if failed { Verdict::Bad } else { Verdict::Good })
}

fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let plan: Vec<_> = args
        .workload
        .iter()
        .map(|&workload| (workload, workload.points(&args.scope, &args.threads)))
        .collect();
    let runs = plan.iter().flat_map(|(_, points)| points).map(|point| args.field(point).len());
    let steps = runs.sum::<usize>() as u64 * u64::from(args.rounds);
    let bar = progress::bar(steps, "bench");
    let mut workloads = Vec::new();
    for (workload, points) in plan {
        let mut measured = Vec::new();
        for point in points {
            bar.set_message(format!("{}, {}", workload.name(), point.name));
            let field = args.field(&point);
            let rounds = args.run_point(&point, &field, interrupt, &bar)?;
            if !rounds.is_empty() {
                measured.push(Measured { point, field, rounds });
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
        versus: Versus::of(args.versus, &workloads),
        workloads,
    })
}

impl Args {
    /// What the parser cannot know.
    fn validate(&self) -> anyhow::Result<()> {
        for &scope in &self.scope {
            if let Some(lock) = self.locks.iter().find(|lock| lock.is_lock && !lock.can_meet(scope)) {
                bail!("{lock:?} cannot be shared between {scope}");
            }
        }
        if !self.versus.is_lock {
            bail!("{:?} does not exclude, and is no lock to compare", self.versus);
        }
        let contended = self.workload.iter().any(|workload| workload.is_contended());
        if self.scope.contains(&Scope::Processes) && !contended {
            bail!("W1 is for one thread, not for processes");
        }
        if !self.check {
            return Ok(());
        }
        let has = |name: &str| self.locks.is_empty() || self.locks.iter().any(|lock| lock.name == name);
        if let Some(missing) = versus::needs(self.versus).find(|name| !has(name)) {
            bail!("--check compares {:?} with the others, and {missing} does not take part", self.versus);
        }
        if !contended {
            bail!("--check is about W2, W3 and W7");
        }
        Ok(())
    }

    /// Who takes part at `point`, in the order of the roster.
    fn field(&self, point: &Point) -> Vec<&'static Competitor> {
        let wanted = |competitor: &&Competitor| {
            // The floors are what uncontended locks are compared with.
            self.locks.is_empty()
                || !competitor.is_lock
                || self.locks.iter().any(|lock| lock.name == competitor.name)
        };
        ROSTER.iter().filter(wanted).filter(|competitor| point.admits(competitor)).collect()
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
                samples[index] = field[index].run(&point.job, self.duration, interrupt)?;
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
