//! kill -9 of a QEMU: its guest has a lock, waits for one, and is in the middle of counting.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vmlab::Cpu::{self, Aarch64Max, CortexA57, X86_64};

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::{Field, Said};
use crate::scenarios::Extent;
use crate::stage::{Machine, Place, Stage};

/// From the death of a machine to the next owner; in small, on any machine.
const MOST: Duration = Duration::from_millis(50);
const MOST_IN_SMALL: Duration = Duration::from_millis(500);

const LIMIT: Duration = Duration::from_secs(60);

/// How long the counting goes on, with the death in the middle.
const COUNTING: Duration = Duration::from_secs(3);

pub(super) fn run(scenario: &'static str, extent: Extent) -> anyhow::Result<Vec<Outcome>> {
    let (survivor, victims): (Cpu, &[Cpu]) = match extent {
        Extent::Quick => (X86_64, &[X86_64]),
        Extent::Full => (X86_64, &[X86_64, X86_64, X86_64, CortexA57, CortexA57, Aarch64Max]),
    };
    let stage = Stage::served()?;
    let survivors = stage.boot(&[survivor])?;
    let mut all = Vec::new();
    for (round, &cpu) in victims.iter().enumerate() {
        let victims = stage.boot(&[cpu])?;
        let trial = Trial {
            stage: &stage,
            victim: &victims[0],
            other: &survivors[0],
            round,
            most: if extent == Extent::Quick { MOST_IN_SMALL } else { MOST },
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

        // All three count under one lock.
        let millis = COUNTING.as_millis().to_string();
        let count = ["count", "robust", "--name", &counted, "--millis", &millis];
        let mut counting = [victim, other, Place::Host].map(|place| self.stage.start(place, &count));
        // The victim has a lock for which the two others wait, in order.
        let mut owner = self.stage.start(victim, &["hold", &held])?;
        owner.expect(&Said::Holds)?;
        let mut next = self.waiter(other, &held)?;
        let mut last = self.waiter(Place::Host, &held)?;
        // And it waits for another's lock, with the host behind it.
        let mut holder = self.stage.start(other, &["hold", &queued])?;
        holder.expect(&Said::Holds)?;
        let _dying = self.waiter(victim, &queued)?;
        let mut behind = self.waiter(Place::Host, &queued)?;
        for actor in &mut counting {
            let actor = actor.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            actor.expect(&Said::Ready)?;
            actor.go()?;
        }
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

        let [_, other_counts, host_counts] = counting;
        let (mut turns, mut violations, mut deaths, mut longest_us) = (0, 0, 0, 0);
        for mut actor in [other_counts?, host_counts?] {
            let account = actor.counted(LIMIT)?;
            turns += account.turns;
            violations += account.violations;
            deaths += account.owner_deaths;
            longest_us = longest_us.max(account.longest_us);
        }
        let [first, second, ..] = self.field(&counted)?;
        // What the victim has counted nobody knows, but that no update of the others is lost.
        let lost = first.abs_diff(second) + turns.saturating_sub(first);
        let note = format!(
            "all three counted; owner died {deaths} x, longest wait {:.1} ms",
            longest_us as f64 / 1e3
        );
        let counting_row = outcome("robust").counts(first, violations + lost).check(deaths <= 1).note(note);
        Ok(vec![owner_row, waiter_row, counting_row])
    }

    /// Somebody who sleeps in the queue of that lock.
    fn waiter(&self, place: Place<'_>, name: &str) -> anyhow::Result<Actor> {
        let mut actor = self.stage.start(place, &["wait", name])?;
        actor.expect(&Said::Ready)?;
        actor.go()?;
        actor.expect(&Said::Waits)?;
        ensure!(actor.is_silent(Duration::from_millis(100))?, "somebody has got a lock that is held");
        Ok(actor)
    }

    fn field(&self, name: &str) -> anyhow::Result<Field> {
        match self.stage.segment().open_mutex::<Field>(name)?.lock_timeout(LIMIT) {
            Ok(guard) => Ok(guard.context("the lock is held")?.get()),
            Err(error) => bail!("{error}"),
        }
    }
}
