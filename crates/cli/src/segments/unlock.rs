//! `crosslock unlock --force`: takes a lock away from an owner who lives.

use std::io::{self, IsTerminal, Write};

use anyhow::bail;
use crosslock::crosslock_core::Ownership;
use crosslock::{LockInfo, Party, Segment};
use serde_json::json;

use super::people::{who, who_lives};
use super::robust::{keyword, readers, state};
use super::time::span;
use super::{json, print};
use crate::exit::Verdict;

/// Take a robust lock away from its owner, or make one usable whose data were given up
///
/// An owner that lives goes on as if it had the lock, until its release fails: so two may be inside. Only for an owner
/// that will never touch the data again. A dead owner needs no unlock.
///
/// Exit status: 0 the lock is free now, or was; 1 it changed hands meanwhile, and was left alone; 2 not done.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UnlockArgs {
    /// The segment's name
    name: String,
    /// The lock's name
    object: String,
    /// Yes, even though the owner may live
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Taken,
    WasFree,
    Declined,
    Changed,
}

pub(crate) fn run(args: &UnlockArgs) -> anyhow::Result<Verdict> {
    let UnlockArgs { name, object, .. } = args;
    if !args.force {
        bail!(
            "unlock takes {object} away from an owner that may live, and then two are inside: say --force if it must be. \
             An owner that is dead needs no unlock: whoever asks next gets the lock, and `crosslock repair {name}` frees it now"
        );
    }
    let segment = Segment::open(name)?;
    let before = look(&segment, args)?;
    let outcome = unlock(&segment, args, &before)?;
    if args.json {
        let outcome_word = match outcome {
            Outcome::Taken => "unlocked",
            Outcome::WasFree => "was free",
            Outcome::Declined => "declined",
            Outcome::Changed => "changed hands",
        };
        let before = json::lock(&before, core::time::Duration::MAX);
        print(json!({ "name": name, "object": object, "outcome": outcome_word, "before": before }))?;
    } else {
        print(format_args!("{object}: {}", said(outcome, &before)))?;
    }
    Ok(match outcome {
        Outcome::Taken | Outcome::WasFree => Verdict::Good,
        Outcome::Declined | Outcome::Changed => Verdict::Bad,
    })
}

fn look(segment: &Segment, args: &UnlockArgs) -> anyhow::Result<LockInfo> {
    let UnlockArgs { name, object, .. } = args;
    if let Some(lock) = segment.locks().into_iter().find(|lock| lock.object.name == *object) {
        return Ok(lock);
    }
    match segment.objects().iter().find(|other| other.name == *object) {
        Some(other) => bail!(
            "{object} is a {}, which does not say who has it; only robust locks can be taken away",
            other.ty.kind
        ),
        None => bail!("{name} has no object {object:?}; `crosslock inspect {name}` shows what it has"),
    }
}

fn unlock(segment: &Segment, args: &UnlockArgs, before: &LockInfo) -> anyhow::Result<Outcome> {
    if matches!(before.ownership, Ok(Ownership::Free(_) | Ownership::Reserved(_))) {
        if readers(before) > 0 {
            bail!(
                "{} is {}; readers cannot be put out, but are not counted any more when they end",
                args.object,
                state(before)
            );
        }
        return Ok(Outcome::WasFree);
    }
    if !args.yes && keyword(before) != "owner dead" && !is_confirmed(args, before)? {
        return Ok(Outcome::Declined);
    }
    // A person takes seconds to answer; an owner that has released it since is not the one who was meant.
    let now = look(segment, args)?;
    let is_same = now.ownership == before.ownership && now.stats.acquisitions == before.stats.acquisitions;
    Ok(if is_same && segment.force_unlock(&args.object)? { Outcome::Taken } else { Outcome::Changed })
}

/// Asks at the terminal.
fn is_confirmed(args: &UnlockArgs, lock: &LockInfo) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "{} is {}; there is no terminal to ask at, so add --yes if it is to be unlocked",
            args.object,
            state(lock)
        );
    }
    eprint!("{}: {} [y/N] ", args.object, question(lock));
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn question(lock: &LockInfo) -> String {
    match &lock.owner {
        Some(owner @ Party { is_alive: true, .. }) => {
            let since = lock.held_for.map(|time| format!(" for at least {}", span(time))).unwrap_or_default();
            format!(
                "{} and has it{since}; it will go on as if it still had it. Take it away?",
                who_lives(owner).replace(", alive", " is alive")
            )
        }
        _ => format!("{}. Let others in?", state(lock)),
    }
}

fn said(outcome: Outcome, before: &LockInfo) -> String {
    match (outcome, &before.owner) {
        (Outcome::Taken, Some(owner)) if owner.is_alive => format!(
            "taken away from {}, who goes on as if it had it until its release fails; the next owner is told that \
             an owner died inside",
            who(owner)
        ),
        (Outcome::Taken, Some(owner)) => {
            format!("freed; {} is dead; the next owner is told that one died inside", who(owner))
        }
        (Outcome::Taken, None) => "free now; the next owner is told that an owner died inside".into(),
        (Outcome::WasFree, _) => format!("nothing to do: {}", state(before)),
        (Outcome::Declined, _) => "left as it is".into(),
        (Outcome::Changed, _) => {
            "it changed hands meanwhile, so its owner is not stuck; left as it is".into()
        }
    }
}
