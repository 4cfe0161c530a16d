//! `crosslock stepkill`: does a lock survive its users, wherever they die?

mod asleep;
mod audit;
mod breakpoints;
mod control;
mod crew;
mod lock;
mod mark;
mod path;
mod report;
mod robust;
mod scenario;
mod stage;
mod tracer;
mod trial;
mod victim;

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;

use self::control::Named;
use self::lock::CrashLock;
use self::path::{Path, Point};
use self::report::{ENOUGH, Report, Row};
use self::robust::{Robust, RobustRw};
use self::scenario::{ALL, LockKind, Scenario};
use self::trial::Job;
pub(crate) use self::victim::{VictimArgs, run_victim};
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::progress;

/// Kill a process at every single instruction of an operation, and see whether the others go on
///
/// For each instruction a fresh process is executed step by step and killed there. The others must then finish
/// their work in a few seconds, find the data whole or be told of the death, and no participant slot and no
/// memory may be lost. At the end a lock that is named one instruction too late must be caught. Exit status 1 if
/// anybody got stuck, data were wrong, something leaked, or the control was not caught.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = Scenario::named)]
    scenario: Vec<&'static Scenario>,
    /// Only one in so many instructions, others each time; controls are not thinned
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stride: u32,
    /// Only this point of one scenario: a number of instructions, or `asleep`
    #[arg(long, value_name = "POINT", requires = "scenario", conflicts_with = "stride")]
    at: Option<Point>,
    /// How many victims at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let interrupt = Interrupt::install()?;
    let everything: Vec<&Scenario> = ALL.iter().collect();
    let scenarios = if args.scenario.is_empty() { &everything } else { &args.scenario };
    if args.at.is_some() && scenarios.len() != 1 {
        bail!("--at is about one --scenario, not {}", scenarios.len());
    }
    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism()?.get(),
    };
    let stride = args.stride as usize;
    let mut rows = Vec::new();
    for scenario in scenarios {
        let plan = Plan { scenario, jobs, stride, at: args.at, interrupt: &interrupt };
        let row = match scenario.lock {
            LockKind::Robust => plan.carry_out::<Robust>(),
            LockKind::RobustRw => plan.carry_out::<RobustRw>(),
            LockKind::NamedAtOnce => plan.carry_out::<Named<false>>(),
            LockKind::NamedLate => plan.carry_out::<Named<true>>(),
        };
        rows.push(row.with_context(|| format!("scenario {scenario}"))?);
        if interrupt.is_raised() {
            break;
        }
    }
    let report = Report::new(stride, rows, interrupt.is_raised());
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    if report.interrupted {
        bail!("interrupted");
    }
    Ok(report.verdict())
}

/// What to do with one scenario.
struct Plan<'a> {
    scenario: &'a Scenario,
    jobs: usize,
    stride: usize,
    at: Option<Point>,
    interrupt: &'a Interrupt,
}

/// What the jobs share.
struct Shared<I> {
    points: Mutex<I>,
    row: Mutex<Row>,
}

impl Plan<'_> {
    fn carry_out<L: CrashLock>(&self) -> anyhow::Result<Row> {
        let start = Instant::now();
        let mut row = Row::new(self.scenario);
        let mut row = if let Some(point) = self.at {
            row.kill_points = 1;
            self.in_jobs::<L, _>(1, [point].into_iter(), None, row)?
        } else {
            let recorded =
                std::thread::scope(|scope| scope.spawn(|| Job::new(0)?.record::<L>(self.scenario)).join());
            let (path, findings) = recorded.ok().context("a job panicked")??;
            row.kill_points = path.points().count();
            row.add("the end", "nobody was killed".to_owned(), findings);
            let points = self.chosen(&path);
            self.in_jobs::<L, _>(self.jobs, points.into_iter(), Some(&path), row)?
        };
        row.time_s = start.elapsed().as_secs_f64();
        row.good = row.is_caught() == self.scenario.is_to_be_caught() && row.killed > 0;
        Ok(row)
    }

    /// One in [`Plan::stride`] points, and the sleep.
    fn chosen(&self, path: &Path) -> Vec<Point> {
        let stride = if self.scenario.is_control() { 1 } else { self.stride };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = now.subsec_micros() as usize % stride;
        let chosen = path
            .points()
            .enumerate()
            .filter(|&(index, point)| index % stride == first || point == Point::Asleep);
        chosen.map(|(_, point)| point).collect()
    }

    fn in_jobs<L: CrashLock, I: ExactSizeIterator<Item = Point> + Send>(
        &self,
        jobs: usize,
        points: I,
        path: Option<&Path>,
        row: Row,
    ) -> anyhow::Result<Row> {
        let bar = progress::bar(points.len() as u64, self.scenario.name);
        let shared = Shared { points: Mutex::new(points), row: Mutex::new(row) };
        std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..jobs)
                .map(|number| {
                    let (shared, bar) = (&shared, &bar);
                    scope.spawn(move || self.job::<L, _>(number, shared, path, bar))
                })
                .collect();
            jobs.into_iter().try_for_each(|job| job.join().ok().context("a job panicked")?)
        })?;
        bar.finish_and_clear();
        Ok(shared.row.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn job<L: CrashLock, I: Iterator<Item = Point>>(
        &self,
        number: usize,
        shared: &Shared<I>,
        path: Option<&Path>,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let job = Job::new(number)?;
        while !self.interrupt.is_raised() {
            let next = shared.points.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(point) = next else { break };
            let outcome = job.try_point::<L>(self.scenario, point, path);
            let outcome = outcome.with_context(|| format!("at {point}"))?;
            bar.inc(1);
            let mut row = shared.row.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Some(outcome) => {
                    row.killed += 1;
                    row.place = self.at.map(|_| outcome.place.clone());
                    row.add(point, outcome.place, outcome.findings);
                }
                None => row.missed += 1,
            }
            let enough = if self.scenario.is_to_be_caught() { 1 } else { ENOUGH };
            if row.failures.len() >= enough {
                break;
            }
        }
        Ok(())
    }
}
