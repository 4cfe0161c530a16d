//! Deaths inside a guest, of its agent, and of the server.

use std::time::{Duration, Instant};

use vmlab::Cpu::X86_64;

use crate::outcome::Outcome;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Machine, Place, Stage};

const LIMIT: Duration = Duration::from_secs(60);

/// From a death, or a release, to the next owner.
const MOST: Duration = Duration::from_millis(50);

/// The same while somebody who rings or hears is missing: who sleeps looks by himself.
const MOST_UNSERVED: Duration = Duration::from_millis(150);

/// How long nothing may happen where nobody can know of a death.
const A_WHILE: Duration = Duration::from_millis(700);

const MACHINES: &str = "host + x86-64 + x86-64";

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let mut stage = Stage::served()?;
    let mut machines = stage.boot(&[X86_64, X86_64])?;
    let mut all = Vec::new();
    for round in 0..rounds(setting) {
        let trial = Trial { stage: &stage, scenario, setting, round };
        all.push(trial.owner(&machines)?);
        all.push(trial.waiter(&machines)?);
        all.push(trial.without_agent(&mut machines)?);
    }
    stage.server()?.kill()?;
    all.push(Trial { stage: &stage, scenario, setting, round: 0 }.without_server(&machines)?);
    Ok(all)
}

/// The same without doorbells: agents look, and tell of deaths, every millisecond.
pub(super) fn without_interrupts(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let stage = Stage::plain()?;
    let machines = stage.boot_with_agents(&[X86_64, X86_64], |config| config)?;
    let mut all = Vec::new();
    for round in 0..rounds(setting) {
        let trial = Trial { stage: &stage, scenario, setting, round };
        all.push(trial.owner(&machines)?);
        all.push(trial.waiter(&machines)?);
    }
    Ok(all)
}

fn rounds(setting: Setting) -> u32 {
    if setting.extent == Extent::Quick { 1 } else { 5 }
}

struct Trial<'a> {
    stage: &'a Stage,
    scenario: &'static str,
    setting: Setting,
    round: u32,
}

impl Trial<'_> {
    /// A process that has a lock is killed in one guest; its neighbour, another guest and the host wait.
    fn owner(&self, machines: &[Machine]) -> anyhow::Result<Outcome> {
        let name = format!("owner {}", self.round);
        let mut owner = self.stage.holder(Place::Guest(&machines[0]), &name)?;
        let places = [Place::Guest(&machines[1]), Place::Host, Place::Guest(&machines[0])];
        let mut waiters = places
            .into_iter()
            .map(|place| self.stage.sleeper(place, &name))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let killed = Instant::now();
        owner.kill()?;
        let (mut told, mut first) = (0, None);
        for waiter in &mut waiters {
            let (got, at) = waiter.got(LIMIT)?;
            told += u64::from(got.owner_died);
            first = first.min(Some(at)).or(Some(at));
        }
        let recovery = first.map_or(LIMIT, |at| at - killed);
        let outcome = self.outcome().counts(1, told.abs_diff(1)).recovered_after(recovery);
        Ok(outcome.check(recovery <= self.setting.deadline(MOST)).note("a process of a guest had the lock"))
    }

    /// A process that waits is killed in a guest; the one behind it must not mind.
    fn waiter(&self, machines: &[Machine]) -> anyhow::Result<Outcome> {
        let name = format!("waiter {}", self.round);
        let mut owner = self.stage.holder(Place::Host, &name)?;
        let mut dying = self.stage.sleeper(Place::Guest(&machines[0]), &name)?;
        let mut behind = self.stage.sleeper(Place::Guest(&machines[1]), &name)?;
        dying.kill()?;
        // Or it may get the lock before it dies.
        dying.wait_end()?;
        let released = Instant::now();
        owner.go()?;
        let (got, at) = behind.got(LIMIT)?;
        let outcome = self.outcome().counts(1, u64::from(got.owner_died)).recovered_after(at - released);
        Ok(outcome
            .check(at - released <= self.setting.deadline(MOST))
            .note("a process of a guest waited, and another behind it"))
    }

    /// Without its agent a guest takes part, slower; of its deaths nobody hears until there is one again.
    fn without_agent(&self, machines: &mut [Machine]) -> anyhow::Result<Outcome> {
        let (name, other) = (format!("agent {}", self.round), format!("unheard {}", self.round));
        let mut owner = self.stage.holder(Place::Host, &name)?;
        let mut asleep = self.stage.sleeper(Place::Guest(&machines[0]), &name)?;
        // Nobody can join without the agent.
        let mut dying = self.stage.holder(Place::Guest(&machines[0]), &other)?;
        machines[0].kill_agent()?;
        let released = Instant::now();
        owner.go()?;
        let (got, at) = asleep.got(LIMIT)?;
        let wake = at - released;
        // A death that nobody can prove robs nobody.
        let mut host = self.stage.sleeper(Place::Host, &other)?;
        dying.kill()?;
        let robbed = !host.is_silent(A_WHILE)?;
        machines[0].start_agent()?;
        let (told, _) = host.got(LIMIT)?;
        let violations = u64::from(got.owner_died) + u64::from(robbed) + u64::from(!told.owner_died);
        let outcome = self.outcome().counts(1, violations).recovered_after(wake);
        Ok(outcome
            .check(wake <= self.setting.deadline(MOST_UNSERVED))
            .note("the agent was killed under a sleeper, and replaced"))
    }

    /// Without the server guests go on, and ring each other; that a machine has died somebody must say.
    fn without_server(&self, machines: &[Machine]) -> anyhow::Result<Outcome> {
        let (one, other) = (Place::Guest(&machines[0]), Place::Guest(&machines[1]));
        let mut owner = self.stage.holder(one, "server")?;
        let mut asleep = self.stage.sleeper(other, "server")?;
        let mut host = self.stage.sleeper(Place::Host, "server")?;
        let released = Instant::now();
        owner.go()?;
        let (got, at) = asleep.got(LIMIT)?;
        let (host_got, _) = host.got(LIMIT)?;
        let wake = at - released;
        let _dying = self.stage.holder(one, "dismissed")?;
        let mut host = self.stage.sleeper(Place::Host, "dismissed")?;
        machines[0].kill();
        let robbed = !host.is_silent(A_WHILE)?;
        self.stage.segment().dismiss(machines[0].domain())?;
        let (told, _) = host.got(LIMIT)?;
        let violations = u64::from(got.owner_died)
            + u64::from(host_got.owner_died)
            + u64::from(robbed)
            + u64::from(!told.owner_died);
        let outcome = self.outcome().counts(1, violations).recovered_after(wake);
        Ok(outcome
            .check(wake <= self.setting.deadline(MOST_UNSERVED))
            .note("the server was killed; then a machine, which somebody dismissed"))
    }

    fn outcome(&self) -> Outcome {
        Outcome::new(self.scenario, MACHINES, "robust")
    }
}
