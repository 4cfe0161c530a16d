//! Every lock between guests, counted.

use std::time::Duration;

use anyhow::bail;
use crosslock::crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{Segment, SegmentContext};
use vmlab::Cpu::{self, Aarch64Max, CortexA57, X86_64};

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::Field;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Place, Stage};

/// The locks, and how much of the work each gets: those that are first come, first served are slow where virtual CPUs are
/// preempted.
const LOCKS: [(&str, u64); 7] = [
    ("robust", 20),
    ("rwlock", 10),
    ("tas", 20),
    ("pvqspinlock", 20),
    ("qspinlock", 1),
    ("mcs", 1),
    ("ticket", 1),
];

const PINGPONG_LOCKS: [&str; 5] = ["tas", "pvqspinlock", "qspinlock", "mcs", "ticket"];

const LIMIT: Duration = Duration::from_secs(300);

/// Who takes part: the guests by their processors, this host if it does, and how guests map the memory.
#[derive(Clone, Copy)]
struct Cast<'a> {
    guests: &'a [Cpu],
    host: bool,
    uncombined: bool,
}

impl Cast<'_> {
    fn label(self) -> String {
        let host = self.host.then_some("host");
        let names: Vec<_> = host.into_iter().chain(self.guests.iter().map(|cpu| cpu.name())).collect();
        names.join(" + ") + if self.uncombined { ", resource2" } else { "" }
    }
}

/// The guests of a cast, with the places that they are.
fn with_cast<R>(
    stage: &Stage,
    cast: Cast<'_>,
    act: impl FnOnce(&[Place<'_>]) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let machines = stage.boot(cast.guests)?;
    let host = cast.host.then_some(Place::Host);
    act(&host.into_iter().chain(machines.iter().map(Place::Guest)).collect::<Vec<_>>())
}

/// What somebody of a cast is to do there.
fn part<'a>(cast: Cast<'_>, place: Place<'a>, deed: &[&'a str]) -> (Place<'a>, Vec<&'a str>) {
    let is_uncombined = cast.uncombined && matches!(place, Place::Guest(..));
    let flag: &[&str] = if is_uncombined { &["--uncombined"] } else { &[] };
    (place, [flag, deed].concat())
}

/// How often a lock must go from one kernel to another at least: what two do one after the other shows nothing.
const CROSSINGS: u64 = 1_000;

/// Has all of them count under one lock.
fn count(
    stage: &Stage,
    places: &[Place<'_>],
    cast: Cast<'_>,
    lock: &str,
    turns: u64,
    outcome: Outcome,
) -> anyhow::Result<Outcome> {
    let [turns, all, crossings] = [turns, places.len() as u64, CROSSINGS].map(|number| number.to_string());
    let deed = ["count", lock, "--turns", &turns, "--crossings", &crossings, "--meet", &all];
    let parts = places.iter().map(|&place| part(cast, place, &deed));
    let sum = Actor::counted_together(&mut stage.start_together(parts)?, LIMIT)?;
    let [first, second, _, crossings] = field(stage, lock)?;
    let lost = sum.turns.abs_diff(first).max(sum.turns.abs_diff(second));
    let rate = sum.turns as f64 / sum.took_us.max(1) as f64 * 1e3;
    let note = format!("{crossings} between kernels, {rate:.0}/ms");
    Ok(outcome.counts(sum.turns, sum.violations + lost).check(crossings >= CROSSINGS).note(note))
}

/// What the counters under a lock show.
fn field(stage: &Stage, lock: &str) -> anyhow::Result<Field> {
    fn spin<L: RawLock<SegmentContext>>(segment: &Segment, name: &str) -> anyhow::Result<Field> {
        Ok(segment.open_spin_mutex::<Field, L>(name)?.contents().get())
    }
    let segment = stage.segment();
    match lock {
        "robust" => Ok(segment.open_mutex::<Field>(lock)?.contents().get()),
        "rwlock" => Ok(segment.open_rwlock::<Field>(lock)?.contents().get()),
        "tas" | "none" => spin::<RawTas>(segment, lock),
        "ticket" => spin::<RawTicket>(segment, lock),
        "mcs" => spin::<RawMcs>(segment, lock),
        "qspinlock" => spin::<RawQSpin>(segment, lock),
        "pvqspinlock" => spin::<RawPvQSpin>(segment, lock),
        other => bail!("there is no lock {other}"),
    }
}

fn pingpong(
    stage: &Stage,
    places: &[Place<'_>],
    cast: Cast<'_>,
    lock: &str,
    rounds: u64,
    outcome: Outcome,
) -> anyhow::Result<Outcome> {
    let [writer, reader, ..] = *places else { bail!("a ping-pong needs two") };
    let rounds_argument = rounds.to_string();
    let write = ["pingpong", lock, "--rounds", &rounds_argument];
    let read = [&write[..], &["--read"]].concat();
    let (mut violations, mut trip_us) = (0, 0.0);
    for mut actor in stage.start_together([part(cast, writer, &write), part(cast, reader, &read)])? {
        let (wrong, median_us, _) = actor.played(rounds, LIMIT)?;
        violations += wrong;
        trip_us = median_us;
    }
    Ok(outcome.counts(rounds, violations).note(format!("ping-pong under two locks, {trip_us:.0} us")))
}

/// All locks, for that cast; the least work is so many sections of each.
fn all_locks(scenario: &'static str, cast: Cast<'_>, least: u64) -> anyhow::Result<Vec<Outcome>> {
    let stage = Stage::plain()?;
    with_cast(&stage, cast, |places| {
        let outcome = |lock| Outcome::new(scenario, &cast.label(), lock);
        let counted =
            LOCKS.map(|(lock, share)| count(&stage, places, cast, lock, share * least, outcome(lock)));
        let played =
            PINGPONG_LOCKS.map(|lock| pingpong(&stage, places, cast, lock, least / 4, outcome(lock)));
        counted.into_iter().chain(played).collect()
    })
}

fn least(extent: Extent) -> u64 {
    match extent {
        Extent::Quick => 2_000,
        Extent::Full => 10_000,
    }
}

/// How guests map the memory: write-combining (`resource2_wc`), and in full also not (`resource2`).
fn mappings(extent: Extent) -> &'static [bool] {
    if extent == Extent::Quick { &[false] } else { &[false, true] }
}

pub(super) fn same(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let mut all = Vec::new();
    for &uncombined in mappings(setting.extent) {
        let cast = Cast { guests: &[X86_64, X86_64], host: false, uncombined };
        all.extend(all_locks(scenario, cast, least(setting.extent))?);
    }
    Ok(all)
}

pub(super) fn with_host(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let mut all = Vec::new();
    let casts = [&[X86_64][..], &[X86_64, X86_64], &[X86_64, CortexA57]];
    for guests in casts.into_iter().filter(|guests| guests.iter().all(|&cpu| setting.has(cpu))) {
        all.extend(all_locks(
            scenario,
            Cast { guests, host: true, uncombined: false },
            least(setting.extent),
        )?);
    }
    Ok(all)
}

pub(super) fn mixed(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let mut all = Vec::new();
    for arm in [CortexA57, Aarch64Max] {
        for &uncombined in mappings(setting.extent) {
            all.extend(all_locks(
                scenario,
                Cast { guests: &[X86_64, arm], host: false, uncombined },
                least(setting.extent),
            )?);
        }
    }
    Ok(all)
}

/// The control: the same count under no lock must be wrong.
pub(super) fn without_lock(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let stage = Stage::plain()?;
    let cast = Cast { guests: &[X86_64], host: true, uncombined: false };
    with_cast(&stage, cast, |places| {
        let outcome = Outcome::new(scenario, &cast.label(), "none");
        let counted = count(&stage, places, cast, "none", 500 * least(setting.extent), outcome)?;
        let is_caught = counted.violations > 0;
        Ok(vec![Outcome { is_good: is_caught, note: "must be above 0".into(), ..counted }])
    })
}
