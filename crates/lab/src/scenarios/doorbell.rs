//! Sleeping for another machine, and being woken by its doorbell.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vmlab::Cpu::X86_64;

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::{Counted, Said};
use crate::scenarios::{Extent, Setting, median};
use crate::stage::{DRILL, Machine, Place, Stage};

const MACHINES: &str = "x86-64 + x86-64";
const LIMIT: Duration = Duration::from_secs(600);

/// How much longer a wake-up may take than bare doorbells do.
const MOST: f64 = 1.5;

/// How much of its virtual CPUs a sleeping waiter may use.
const MOST_CPU: f64 = 0.05;

/// How long each has the first messages, so that the other sleeps.
const ASLEEP_AFTER_US: u32 = 200;

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let stage = Stage::served()?;
    let mut machines = stage.boot_bare(&[X86_64, X86_64])?;
    let (series, rounds, soak) = match setting.extent {
        Extent::Quick => (2, 500, 2_000),
        Extent::Full => (5, 2_000, 100_000),
    };
    let trips = round_trips(&stage, &mut machines, scenario, setting, series, rounds)?;
    let asleep = asleep(&stage, &machines, scenario, setting)?;
    let soaked = ["robust", "pvqspinlock"].map(|lock| hand_overs(&stage, &machines, scenario, lock, soak));
    Ok([trips, asleep].into_iter().chain(soaked.into_iter().collect::<anyhow::Result<Vec<_>>>()?).collect())
}

/// A lock's round trip against that of bare doorbells, one after the other and so on. The agents stand in the end.
fn round_trips(
    stage: &Stage,
    machines: &mut [Machine],
    scenario: &'static str,
    setting: Setting,
    series: usize,
    rounds: u64,
) -> anyhow::Result<Outcome> {
    let (mut bare, mut ours, mut violations, mut measured) = (Vec::new(), Vec::new(), 0, 0);
    for number in 0..series {
        if number > 0 {
            machines.iter_mut().try_for_each(Machine::kill_agent)?;
        }
        bare.push(bare_round_trip(stage, machines, rounds)?);
        machines.iter_mut().try_for_each(Machine::start_agent)?;
        let (trip, wrong, asleep) = round_trip(stage, machines, rounds)?;
        ours.push(trip);
        violations += wrong;
        measured += asleep;
    }
    let (bare, ours) = (median(&mut bare), median(&mut ours));
    let ratio = ours / bare;
    let note = format!(
        "round trip of two sleepers {ours:.0} us ({measured} measured), bare doorbells {bare:.0} us: {ratio:.2} x"
    );
    let outcome = Outcome::new(scenario, MACHINES, "pvqspinlock").counts(series as u64 * rounds, violations);
    Ok(outcome.check(measured > 100 && (!setting.judges_times() || ratio <= MOST)).note(note))
}

/// The median of doorbells there and back, in microseconds.
fn bare_round_trip(stage: &Stage, machines: &[Machine], rounds: u64) -> anyhow::Result<f64> {
    let [one, other] = machines else { bail!("a round trip needs two machines") };
    let peers = stage.peers();
    let [first, second] = peers[..] else { bail!("the peers are {peers:?}") };
    let echo = |peer: u32| -> anyhow::Result<_> {
        let mut echo = one.guest().exec([DRILL, "echo", &peer.to_string()])?;
        let line = echo.line_with("echoes as peer", Duration::from_secs(30))?;
        let own: u32 = line.split(' ').next_back().context("no peer")?.parse()?;
        Ok((echo, own))
    };
    let (mut echo_program, mut own) = echo(first)?;
    if own == first {
        echo_program.kill()?;
        echo_program.wait(Duration::from_secs(10))?;
        (echo_program, own) = echo(second)?;
    }
    let measure = [DRILL, "round-trip", &own.to_string(), &rounds.to_string()];
    let said = other.guest().program(measure).limit(LIMIT).run()?.success()?.text();
    echo_program.kill()?;
    echo_program.wait(Duration::from_secs(10))?;
    let median = said.split("median ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(median.with_context(|| format!("the drill said {said}"))?.parse()?)
}

/// The median of two hand-overs of a lock, there and back, in microseconds, both to a sleeper; messages out of order; and how many
/// were measured.
fn round_trip(stage: &Stage, machines: &[Machine], rounds: u64) -> anyhow::Result<(f64, u64, u64)> {
    let (number, hold_us) = (rounds.to_string(), ASLEEP_AFTER_US.to_string());
    let deed = ["pingpong", "pvqspinlock", "--rounds", &number, "--hold-us", &hold_us];
    let parts = [(&machines[0], &[][..]), (&machines[1], &["--read"])];
    let parts = parts.map(|(machine, read)| (Place::Guest(machine), [&deed, read].concat()));
    let [writer, reader] = &mut stage.start_together(parts)?[..] else { unreachable!("two were started") };
    let (_, trip, measured) = writer.played(rounds, LIMIT)?;
    let (wrong, ..) = reader.played(rounds, LIMIT)?;
    Ok((trip, wrong, measured))
}

/// One has a robust lock for seconds, the other waits for it: what the waiting costs.
fn asleep(
    stage: &Stage,
    machines: &[Machine],
    scenario: &'static str,
    setting: Setting,
) -> anyhow::Result<Outcome> {
    const HELD: Duration = Duration::from_secs(4);
    let [one, other] = machines else { bail!("one has the lock, one waits") };
    let mut owner = stage.holder(Place::Guest(one), "held")?;
    let mut waiter = stage.sleeper(Place::Guest(other), "held")?;
    // What comes before the sleep does not count.
    std::thread::sleep(Duration::from_millis(500));
    let (start, before) = (Instant::now(), other.cpu_time()?);
    ensure!(waiter.is_silent(HELD)?, "the waiter has got a lock that is held");
    let (time, cpu) = (start.elapsed(), other.cpu_time()? - before);
    owner.go()?;
    let (got, _) = waiter.got(LIMIT)?;
    owner.expect(&Said::Released)?;
    let share = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64();
    let (machine, process) = (share(cpu), got.cpu_us as f64 / got.waited_us as f64);
    let note = format!(
        "asleep: {:.1} % of a CPU for all its virtual ones, {:.2} % in the process",
        1e2 * machine,
        1e2 * process
    );
    let outcome = Outcome::new(scenario, MACHINES, "robust").counts(1, u64::from(got.owner_died));
    // Where the processor is an emulator's, so is most of the time: a guest that does nothing uses as much.
    Ok(outcome.check(setting.is_nested || machine < MOST_CPU && process < MOST_CPU).note(note))
}

/// Both take turns, and whoever waits sleeps: each turn needs a kick.
fn hand_overs(
    stage: &Stage,
    machines: &[Machine],
    scenario: &'static str,
    lock: &str,
    times: u64,
) -> anyhow::Result<Outcome> {
    let turns = (times / 2).to_string();
    let deed = [
        "count",
        lock,
        "--name",
        &format!("soak {lock}"),
        "--turns",
        &turns,
        "--hold-us",
        "200",
        "--alternate",
    ];
    let parts = machines.iter().map(|machine| (Place::Guest(machine), deed.to_vec()));
    let sum = Actor::counted_together(&mut stage.start_together(parts)?, LIMIT)?;
    let Counted { handed_over, late_kicks, .. } = sum;
    let note = format!(
        "hand-overs to sleepers, {:.0} us each with 200 us held, longest wait {:.1} ms, {late_kicks} kicks late",
        sum.took_us as f64 / handed_over.max(1) as f64,
        sum.longest_us as f64 / 1e3
    );
    let outcome = Outcome::new(scenario, MACHINES, lock).counts(handed_over, sum.violations + late_kicks);
    Ok(outcome.check(handed_over + 1 >= times).note(note))
}
