//! kill -9 of a QEMU: its guest has a lock, waits for one, and is in the middle of counting.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use vmlab::Cpu::{self, Aarch64Max, CortexA57, X86_64};

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::Field;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Machine, Place, Stage};

/// From the death of a machine to the next owner; in small, on any machine.
const MOST: Duration = Duration::from_millis(50);
const MOST_IN_SMALL: Duration = Duration::from_millis(500);

const LIMIT: Duration = Duration::from_secs(60);

/// How long the counting goes on, with the death in the middle.
const COUNTING: Duration = Duration::from_secs(3);

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let (survivor, victims): (Cpu, &[Cpu]) = match setting.extent {
        Extent::Quick => (X86_64, &[X86_64]),
        Extent::Full => (X86_64, &[X86_64, X86_64, X86_64, CortexA57, CortexA57, Aarch64Max]),
    };
    let stage = Stage::served()?;
    let survivors = stage.boot(&[survivor])?;
    let mut all = Vec::new();
    for (round, &cpu) in victims.iter().filter(|&&cpu| setting.has(cpu)).enumerate() {
        let victims = stage.boot(&[cpu])?;
        let trial = Trial {
            stage: &stage,
            victim: &victims[0],
            other: &survivors[0],
            round,
            most: setting.deadline(if setting.extent == Extent::Quick { MOST_IN_SMALL } else { MOST }),
            machines: format!("{cpu} dies; host + {survivor}"),
        };
        all.extend(trial.run(scenario)?);
    }
    Ok(all)
}

struct Trial<'a> {
    stage: &'a Stage,
    victim: &'a Machine,
    other: &'a Machine,
    round: usize,
    most: Duration,
    machines: String,
}

impl Trial<'_> {
    fn run(&self, scenario: &'static str) -> anyhow::Result<Vec<Outcome>> {
        let outcome = |lock| Outcome::new(scenario, &self.machines, lock);
        let (held, queued) = (format!("held {}", self.round), format!("queued {}", self.round));
        let counted = format!("counted {}", self.round);
        let (victim, other) = (Place::Guest(self.victim), Place::Guest(self.other));

        // The victim has a lock for which the two others wait, in order.
        let _owner = self.stage.holder(victim, &held)?;
        let mut next = self.stage.sleeper(other, &held)?;
        let mut last = self.stage.sleeper(Place::Host, &held)?;
        // And it waits for another's lock, with the host behind it.
        let mut holder = self.stage.holder(other, &queued)?;
        let _dying = self.stage.sleeper(victim, &queued)?;
        let mut behind = self.stage.sleeper(Place::Host, &queued)?;
        // All three count under one lock.
        let millis = COUNTING.as_millis().to_string();
        let count = ["count", "robust", "--name", &counted, "--millis", &millis];
        let parts = [victim, other, Place::Host].map(|place| (place, count.to_vec()));
        let mut counting = self.stage.start_together(parts)?;
        std::thread::sleep(COUNTING / 3);

        let killed = self.victim.kill();
        // One of them hears of the death, whoever is first.
        let (first, first_at) = next.got(LIMIT)?;
        let (second, second_at) = last.got(LIMIT)?;
        let recovery = first_at.min(second_at) - killed;
        let told = u64::from(first.owner_died) + u64::from(second.owner_died);
        let owner_row = outcome("robust").counts(1, told.abs_diff(1)).recovered_after(recovery);
        let owner_row = owner_row.check(recovery <= self.most).note("the machine had the lock");

        let released = Instant::now();
        holder.go()?;
        let (got, at) = behind.got(LIMIT)?;
        let waiter_row =
            outcome("robust").counts(1, u64::from(got.owner_died)).recovered_after(at - released);
        let waiter_row =
            waiter_row.check(at - released <= self.most).note("it waited, and another behind it");

        let sum = Actor::counted_together(&mut counting[1..], LIMIT)?;
        let [first, second, ..] = self.field(&counted)?;
        // What the victim has counted nobody knows, but that no update of the others is lost.
        let lost = first.abs_diff(second) + sum.turns.saturating_sub(first);
        let note = format!(
            "all three counted; owner died {} x, longest wait {:.1} ms",
            sum.owner_deaths,
            sum.longest_us as f64 / 1e3
        );
        let counting_row =
            outcome("robust").counts(first, sum.violations + lost).check(sum.owner_deaths <= 1).note(note);
        Ok(vec![owner_row, waiter_row, counting_row])
    }

    fn field(&self, name: &str) -> anyhow::Result<Field> {
        match self.stage.segment().open_mutex::<Field>(name)?.lock_timeout(LIMIT) {
            Ok(guard) => Ok(guard.context("the lock is held")?.get()),
            Err(error) => bail!("{error}"),
        }
    }
}
