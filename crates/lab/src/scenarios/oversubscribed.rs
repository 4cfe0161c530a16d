//! More virtual CPUs than CPUs: what waiting costs.

use std::time::Duration;

use anyhow::ensure;
use vmlab::Cpu::X86_64;

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::Counted;
use crate::scenarios::{Extent, Setting, median};
use crate::stage::{Machine, Place, Stage};

/// Virtual CPUs of each guest, and threads that want the lock. KVM on an emulated processor does not bear eight for long.
const CPUS: u32 = 4;
const CPUS_NESTED: u32 = 2;

const LIMIT: Duration = Duration::from_secs(600);

/// How much more the locks that sleep must do than those that are first come, first served and spin.
const LEAST: f64 = 20.0;

const SPINNING: [&str; 2] = ["ticket", "mcs"];
const SLEEPING: [&str; 2] = ["robust", "pvqspinlock"];

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let (rounds, time) = match setting.extent {
        Extent::Quick => (1, Duration::from_secs(2)),
        Extent::Full => (3, Duration::from_secs(4)),
    };
    let cpus = if setting.is_nested { CPUS_NESTED } else { CPUS };
    let names = format!("2 x x86-64 with {cpus} CPUs");
    let stage = Stage::served()?;
    let machines = stage.boot_with_agents(&[X86_64, X86_64], |config| config.cpus(cpus))?;
    let locks = [&SPINNING[..], &["qspinlock", "tas"], &SLEEPING].concat();
    let mut rates = vec![Vec::new(); locks.len()];
    let mut sums = vec![Counted::default(); locks.len()];
    for _ in 0..rounds {
        for ((lock, rates), sum) in locks.iter().zip(&mut rates).zip(&mut sums) {
            let counted = contend(&stage, &machines, lock, cpus, time)?;
            rates.push(counted.turns as f64 / (counted.took_us as f64 / 1e6));
            *sum = [sum.clone(), counted].into_iter().sum();
        }
    }
    let rates: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let of = |lock: &str| locks.iter().position(|found| *found == lock).map_or(0.0, |index| rates[index]);
    let best_spinning = SPINNING.map(of).into_iter().fold(0.0, f64::max);
    let rows = locks.iter().zip(&rates).zip(&sums).map(|((lock, rate), sum)| {
        let ratio = rate / best_spinning;
        let note = format!("{rate:.0}/s, {ratio:.1} x the better of ticket and mcs");
        let outcome = Outcome::new(scenario, &names, lock).counts(sum.turns, sum.violations).note(note);
        outcome.check(setting.is_nested || !SLEEPING.contains(lock) || ratio >= LEAST)
    });
    Ok(rows.collect())
}

/// All threads of both guests want one lock for so long.
fn contend(
    stage: &Stage,
    machines: &[Machine],
    lock: &str,
    threads: u32,
    time: Duration,
) -> anyhow::Result<Counted> {
    let (millis, threads) = (time.as_millis().to_string(), threads.to_string());
    let deed =
        ["count", lock, "--name", &format!("contended {lock}"), "--millis", &millis, "--threads", &threads];
    let parts = machines.iter().map(|machine| (Place::Guest(machine), deed.to_vec()));
    let sum = Actor::counted_together(&mut stage.start_together(parts)?, LIMIT)?;
    ensure!(sum.turns > 0, "nobody has got {lock}");
    Ok(sum)
}
