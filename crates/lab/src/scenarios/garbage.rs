//! A machine that writes garbage all over the segment: the others get errors, and no more than that.

use std::time::Duration;

use vmlab::Cpu::X86_64;

use crate::outcome::Outcome;
use crate::said::Said;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Place, Stage};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let time = Duration::from_secs(if setting.extent == Extent::Quick { 3 } else { 20 });
    let mut stage = Stage::served()?;
    let machines = stage.boot(&[X86_64, X86_64])?;
    let [hostile, honest] = &machines[..] else { unreachable!("two were booted") };
    let millis = time.as_millis().to_string();
    let mut scribbler = stage.start(Place::Guest(hostile), &["scribble", "--millis", &millis])?;
    scribbler.expect(&Said::Ready)?;
    let mut visitors = Vec::new();
    for (place, label) in [(Place::Guest(honest), "x86-64"), (Place::Host, "host")] {
        let mut visitor = stage.start(place, &["visit", "--millis", &millis])?;
        visitor.expect(&Said::Ready)?;
        visitors.push((visitor, label));
    }
    scribbler.go()?;
    visitors.iter_mut().try_for_each(|(visitor, _)| visitor.go())?;
    let mut all = Vec::new();
    for (mut visitor, label) in visitors {
        // Whoever panics, crashes or hangs for ever says nothing any more.
        let heard = visitor.hear_within(time + LIMIT)?;
        let Said::Visited { good, errors } = heard else { anyhow::bail!("a visitor said {heard:?}") };
        let machines = format!("x86-64 scribbles; {label}");
        let outcome = Outcome::new(scenario, &machines, "all").counts(good + errors, 0).check(errors > 0);
        all.push(outcome.note(format!("{errors} errors, {good} went well; no panic, no crash")));
    }
    let written = match scribbler.hear_within(LIMIT)? {
        Said::Visited { good, .. } => good,
        other => anyhow::bail!("the scribbler said {other:?}"),
    };
    let is_alive = stage.server()?.is_alive()?;
    let note = format!("{written} words of garbage; the server goes on");
    all.push(Outcome::new(scenario, "server", "").counts(written, 0).check(is_alive).note(note));
    // The agents have not ended either: the machines can be told to.
    for machine in &machines {
        let runs =
            machine.guest().programs().iter().any(|program| program.argv.iter().any(|word| word == "agent"));
        all.push(Outcome::new(scenario, machine.guest().name(), "").check(runs).note("its agent goes on"));
    }
    Ok(all)
}
