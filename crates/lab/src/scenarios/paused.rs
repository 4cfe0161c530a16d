//! A machine that is stopped while it has a lock: it is slow, not dead.

use std::time::{Duration, Instant};

use vmlab::Cpu::X86_64;

use crate::outcome::Outcome;
use crate::said::Said;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Place, Stage};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let pause = Duration::from_secs(if setting.extent == Extent::Quick { 2 } else { 10 });
    let stage = Stage::served()?;
    let machines = stage.boot(&[X86_64, X86_64])?;
    let [stopped, other] = &machines[..] else { unreachable!("two were booted") };
    let mut owner = stage.holder(Place::Guest(stopped), "held")?;
    let mut in_guest = stage.sleeper(Place::Guest(other), "held")?;
    let mut on_host = stage.sleeper(Place::Host, "held")?;
    stopped.guest().pause()?;
    let start = Instant::now();
    let robbed = !in_guest.is_silent(pause)? || !on_host.is_silent(Duration::from_millis(10))?;
    let time = start.elapsed();
    stopped.guest().resume()?;
    owner.go()?;
    let released = Instant::now();
    owner.expect(&Said::Released)?;
    let (first, first_at) = in_guest.got(LIMIT)?;
    let (second, second_at) = on_host.got(LIMIT)?;
    let violations = u64::from(robbed) + u64::from(first.owner_died) + u64::from(second.owner_died);
    let note = format!("stopped for {:.1} s with the lock, not robbed, went on", time.as_secs_f64());
    let next = first_at.min(second_at) - released;
    let outcome = Outcome::new(scenario, "x86-64 stops; host + x86-64", "robust").counts(1, violations);
    Ok(vec![outcome.recovered_after(next).note(note)])
}
