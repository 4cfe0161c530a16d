//! `crosslock repair`: frees what the dead have left.

use crosslock::{LockInfo, Repaired, Segment};
use serde_json::json;

use super::people::who;
use super::robust::{advice, keyword, state};
use super::{json, print};
use crate::exit::Verdict;

/// Free the robust locks of dead owners
///
/// Nobody needs this in order to go on: whoever asks for such a lock gets it. Each lock's next owner is told that
/// the data may be half changed. Locks whose owners live are left alone.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// The segment's name
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RepairArgs) -> anyhow::Result<Verdict> {
    let segment = Segment::open(&args.name)?;
    let repaired = segment.repair()?;
    let locks = segment.locks();
    let is_broken = |lock: &&LockInfo| matches!(keyword(lock), "not recoverable" | "damaged");
    let broken: Vec<_> = locks.iter().filter(is_broken).collect();
    if args.json {
        let freed: Vec<_> = repaired
            .iter()
            .map(|one| json!({ "object": one.object, "owner": one.owner.as_ref().map(json::party) }))
            .collect();
        let broken: Vec<_> =
            broken.iter().map(|lock| json!({ "object": lock.object.name, "state": keyword(lock) })).collect();
        print(json!({ "name": args.name, "freed": freed, "broken": broken }))?;
        return Ok(Verdict::Good);
    }
    for one in &repaired {
        print(freed(one, locks.iter().find(|lock| lock.object.name == one.object)))?;
    }
    if repaired.is_empty() {
        print(format_args!("nothing to repair: {}", nothing(&args.name, locks.len())))?;
    }
    for lock in broken {
        print(format_args!(
            "{}: {}; {}",
            lock.object.name,
            state(lock),
            advice(&args.name, lock).unwrap_or_default()
        ))?;
    }
    Ok(Verdict::Good)
}

fn nothing(segment: &str, locks: usize) -> String {
    match locks {
        0 => format!("{segment} has no robust locks"),
        1 => format!("no dead owner has the one robust lock of {segment}"),
        _ => format!("no dead owner has any of the {locks} robust locks of {segment}"),
    }
}

/// What was done; `after` is the lock some time after it.
fn freed(one: &Repaired, after: Option<&LockInfo>) -> String {
    let owner = one.owner.as_ref().map_or_else(|| "its owner".into(), who);
    let told = match after.and_then(LockInfo::condition) {
        Some(condition) if !condition.owner_died => "",
        _ => "; the next owner is told that one died inside",
    };
    format!("{}: freed; {owner} is dead{told}", one.object)
}
