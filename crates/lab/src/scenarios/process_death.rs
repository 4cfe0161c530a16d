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
    let rounds = if setting.extent == Extent::Quick { 1 } else { 5 };
    let mut all = Vec::new();
    for round in 0..rounds {
        all.push(owner(&stage, &machines, scenario, setting, round)?);
        all.push(waiter(&stage, &machines, scenario, setting, round)?);
        all.push(without_agent(&stage, &mut machines, scenario, setting, round)?);
    }
    stage.server()?.kill()?;
    all.push(without_server(&stage, &machines, scenario, setting)?);
    Ok(all)
}

/// The same without doorbells: agents look, and tell of deaths, every millisecond.
pub(super) fn without_interrupts(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let stage = Stage::plain()?;
    let machines = stage.boot_with_agents(&[X86_64, X86_64], |config| config)?;
    let rounds = if setting.extent == Extent::Quick { 1 } else { 5 };
    let mut all = Vec::new();
    for round in 0..rounds {
        all.push(owner(&stage, &machines, scenario, setting, round)?);
        all.push(waiter(&stage, &machines, scenario, setting, round)?);
    }
    Ok(all)
}

fn outcome(scenario: &'static str) -> Outcome {
    Outcome::new(scenario, MACHINES, "robust")
}

/// A process that has a lock is killed in one guest; its neighbour, another guest and the host wait.
fn owner(
    stage: &Stage,
    machines: &[Machine],
    scenario: &'static str,
    setting: Setting,
    round: u32,
) -> anyhow::Result<Outcome> {
    let name = format!("owner {round}");
    let mut owner = stage.holder(Place::Guest(&machines[0]), &name)?;
    let places = [Place::Guest(&machines[1]), Place::Host, Place::Guest(&machines[0])];
    let mut waiters =
        places.into_iter().map(|place| stage.sleeper(place, &name)).collect::<anyhow::Result<Vec<_>>>()?;
    let killed = Instant::now();
    owner.kill()?;
    let (mut told, mut first) = (0, None);
    for waiter in &mut waiters {
        let (got, at) = waiter.got(LIMIT)?;
        told += u64::from(got.owner_died);
        first = first.min(Some(at)).or(Some(at));
    }
    let recovery = first.map_or(LIMIT, |at| at - killed);
    let outcome = outcome(scenario).counts(1, told.abs_diff(1)).recovered_after(recovery);
    Ok(outcome.check(recovery <= setting.deadline(MOST)).note("a process of a guest had the lock"))
}

/// A process that waits is killed in a guest; the one behind it must not mind.
fn waiter(
    stage: &Stage,
    machines: &[Machine],
    scenario: &'static str,
    setting: Setting,
    round: u32,
) -> anyhow::Result<Outcome> {
    let name = format!("waiter {round}");
    let mut owner = stage.holder(Place::Host, &name)?;
    let mut dying = stage.sleeper(Place::Guest(&machines[0]), &name)?;
    let mut behind = stage.sleeper(Place::Guest(&machines[1]), &name)?;
    dying.kill()?;
    // Or it may get the lock before it dies.
    dying.wait_end()?;
    let released = Instant::now();
    owner.go()?;
    let (got, at) = behind.got(LIMIT)?;
    let outcome = outcome(scenario).counts(1, u64::from(got.owner_died)).recovered_after(at - released);
    Ok(outcome
        .check(at - released <= setting.deadline(MOST))
        .note("a process of a guest waited, and another behind it"))
}

/// Without its agent a guest takes part, slower; of its deaths nobody hears until there is one again.
fn without_agent(
    stage: &Stage,
    machines: &mut [Machine],
    scenario: &'static str,
    setting: Setting,
    round: u32,
) -> anyhow::Result<Outcome> {
    let (name, other) = (format!("agent {round}"), format!("unheard {round}"));
    let mut owner = stage.holder(Place::Host, &name)?;
    let mut asleep = stage.sleeper(Place::Guest(&machines[0]), &name)?;
    // Nobody can join without the agent.
    let mut dying = stage.holder(Place::Guest(&machines[0]), &other)?;
    machines[0].kill_agent()?;
    let released = Instant::now();
    owner.go()?;
    let (got, at) = asleep.got(LIMIT)?;
    let wake = at - released;
    // A death that nobody can prove robs nobody.
    let mut host = stage.sleeper(Place::Host, &other)?;
    dying.kill()?;
    let robbed = !host.is_silent(A_WHILE)?;
    machines[0].start_agent()?;
    let (told, _) = host.got(LIMIT)?;
    let violations = u64::from(got.owner_died) + u64::from(robbed) + u64::from(!told.owner_died);
    let outcome = outcome(scenario).counts(1, violations).recovered_after(wake);
    Ok(outcome
        .check(wake <= setting.deadline(MOST_UNSERVED))
        .note("the agent was killed under a sleeper, and replaced"))
}

/// Without the server guests go on, and ring each other; that a machine has died somebody must say.
fn without_server(
    stage: &Stage,
    machines: &[Machine],
    scenario: &'static str,
    setting: Setting,
) -> anyhow::Result<Outcome> {
    let (one, other) = (Place::Guest(&machines[0]), Place::Guest(&machines[1]));
    let mut owner = stage.holder(one, "server")?;
    let mut asleep = stage.sleeper(other, "server")?;
    let mut host = stage.sleeper(Place::Host, "server")?;
    let released = Instant::now();
    owner.go()?;
    let (got, at) = asleep.got(LIMIT)?;
    let (host_got, _) = host.got(LIMIT)?;
    let wake = at - released;
    let _dying = stage.holder(one, "dismissed")?;
    let mut host = stage.sleeper(Place::Host, "dismissed")?;
    machines[0].kill();
    let robbed = !host.is_silent(A_WHILE)?;
    stage.segment().dismiss(machines[0].domain())?;
    let (told, _) = host.got(LIMIT)?;
    let violations = u64::from(got.owner_died)
        + u64::from(host_got.owner_died)
        + u64::from(robbed)
        + u64::from(!told.owner_died);
    let outcome = outcome(scenario).counts(1, violations).recovered_after(wake);
    Ok(outcome
        .check(wake <= setting.deadline(MOST_UNSERVED))
        .note("the server was killed; then a machine, which somebody dismissed"))
}
