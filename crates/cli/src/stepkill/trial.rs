//! One victim: its stage is set, it is killed at one point, and the stage is audited.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::audit::Findings;
use super::lock::CrashLock;
use super::path::{Path, Point};
use super::scenario::Scenario;
use super::stage::Stage;
use super::tracer::{Hung, Moment, Reached, Victim, Way};

/// A thread that traces victims, one after the other, on one CPU: passing it to and fro is much quicker than waking
/// each other on two.
pub(super) struct Job {
    number: usize,
    cpus: CpuSet,
}

/// What came of a point.
pub(super) struct Outcome {
    pub(super) findings: Findings,
    /// Where the victim stood when it was killed, for people.
    pub(super) place: String,
}

impl Job {
    /// The running thread becomes job `number`.
    pub(super) fn new(number: usize) -> anyhow::Result<Self> {
        let cpus = sched_getaffinity(None)?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| cpus.is_set(cpu)).collect();
        let mut mine = CpuSet::new();
        if let Some(&cpu) = usable.get(number % usable.len().max(1)) {
            mine.set(cpu);
            sched_setaffinity(None, &mine)?;
        }
        Ok(Self { number, cpus })
    }

    /// Lets a victim go through the operation, and audits what it is like when all goes well.
    pub(super) fn record<L: CrashLock>(&self, scenario: &Scenario) -> anyhow::Result<(Path, Findings)> {
        let mut stage = Stage::new::<L>(scenario, self.cpus, self.number)?;
        let mut victim = start(&stage)?;
        stage.react::<L>(Moment::Begin)?;
        let path = victim.record(&mut |moment| stage.react::<L>(moment))?;
        victim.kill()?;
        drop(victim);
        Ok((path, stage.audit::<L>()?))
    }

    /// Kills a victim at `point`; `None` if its operation ended before.
    ///
    /// With a `path` it gets there quickly. Where it takes another path than that, another victim goes more slowly.
    pub(super) fn try_point<L: CrashLock>(
        &self,
        scenario: &Scenario,
        point: Point,
        path: Option<&Path>,
    ) -> anyhow::Result<Option<Outcome>> {
        let ways = path.map(|path| [Way::Leap(path), Way::Hop(path)]);
        for way in ways.into_iter().flatten().chain([Way::Step]) {
            let outcome = self.try_way::<L>(scenario, point, way)?;
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
        Ok(None)
    }

    fn try_way<L: CrashLock>(
        &self,
        scenario: &Scenario,
        point: Point,
        way: Way<'_>,
    ) -> anyhow::Result<Option<Outcome>> {
        let mut stage = Stage::new::<L>(scenario, self.cpus, self.number)?;
        let mut victim = start(&stage)?;
        stage.react::<L>(Moment::Begin)?;
        let reached = victim.run_to(point, way, &mut |moment| stage.react::<L>(moment));
        let hung = reached.as_ref().is_err_and(|error| error.is::<Hung>());
        let place = match reached {
            Ok(Reached::Yes) if point == Point::Asleep => "asleep".to_owned(),
            Ok(Reached::Yes) => victim.place()?,
            Ok(Reached::Ended | Reached::Astray) => return Ok(None),
            Err(error) if hung => error.to_string(),
            Err(error) => return Err(error),
        };
        stage.react::<L>(Moment::Kill)?;
        victim.kill()?;
        // Every other one stays a zombie until the others have gone on without it.
        let zombie = matches!(point, Point::After(steps) if steps % 2 == 1).then_some(victim);
        let mut findings = stage.audit::<L>()?;
        drop(zombie);
        if hung {
            findings.stuck(&place);
        }
        Ok(Some(Outcome { findings, place }))
    }
}

fn start(stage: &Stage<'_>) -> anyhow::Result<Victim> {
    let (command, _descriptor) = stage.victim()?;
    Victim::start(command)
}
