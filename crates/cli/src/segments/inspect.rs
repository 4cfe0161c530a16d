//! `crosslock inspect`: who is in a segment, who has its locks, and who waits for them; reads only.

use core::time::Duration;

use anyhow::bail;
use crosslock::{DomainInfo, Liveness, ObjectInfo, Participant, Segment};

use super::found::{Found, liveness, spin_state, uuid};
use super::{detail, human, json, print, robust, table};
use crate::duration::parse_duration;
use crate::exit::Verdict;

/// Show who has the locks of a segment, whether they live, and who waits
///
/// Maps the segment read-only: nothing in it is disturbed. How long a lock has been held is known from when somebody
/// first waited for it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The segment's name
    name: String,
    /// Only this object, with its words
    object: Option<String>,
    /// Mark locks that are held for so long
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    long: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<Verdict> {
    let segment = Segment::open_read_only(&args.name)?;
    let (participants, objects, locks) = (segment.participants()?, segment.objects(), segment.locks());
    let found = Found { name: &args.name, long: args.long, segment, participants, objects, locks };
    let object = args.object.as_deref().map(|name| find(&found, name)).transpose()?;
    match (object, args.json) {
        (Some(object), true) => print(json::object(&found, object))?,
        (Some(object), false) => print(detail::text(&found, object))?,
        (None, true) => print(json::segment(&found)?)?,
        (None, false) => print_for_people(&found)?,
    }
    Ok(Verdict::Good)
}

fn find<'a>(found: &'a Found<'_>, name: &str) -> anyhow::Result<&'a ObjectInfo> {
    if let Some(object) = found.objects.iter().find(|object| object.name == name) {
        return Ok(object);
    }
    if found.objects.is_empty() {
        bail!("{} has no object {name:?}, and no other", found.name);
    }
    let names: Vec<_> = found.objects.iter().take(20).map(|object| object.name.as_str()).collect();
    let more = if found.objects.len() > names.len() { ", ..." } else { "" };
    bail!("{} has no object {name:?}; it has {}{more}", found.name, names.join(", "));
}

fn print_for_people(found: &Found<'_>) -> anyhow::Result<()> {
    let Found { name, segment, participants, .. } = found;
    let (used, heap) = (human(segment.heap_used()? as u64), human(segment.heap_size() as u64));
    print(format_args!("segment {name}, {}, uuid {}", human(segment.size() as u64), uuid(segment)))?;
    let dead = participants.iter().filter(|participant| participant.liveness != Liveness::Alive).count();
    let dead = if dead > 0 { format!(", {dead} of them dead") } else { String::new() };
    print(format_args!(
        "heap {used} of {heap}; {} of {} participants{dead}",
        participants.len(),
        segment.slots()
    ))?;
    print_domains(segment)?;
    print_locks(found)?;
    print_objects(found)?;
    print_participants(participants)
}

/// The kernels that take part, where there may be several.
fn print_domains(segment: &Segment) -> anyhow::Result<()> {
    let domains = segment.domains();
    if domains.len() == 1 {
        return Ok(());
    }
    let mut rows = table::new(["DOMAIN", "PEER", "SERVED BY"]);
    for DomainInfo { domain, peer, agent, .. } in domains.iter().filter(|domain| domain.is_alive) {
        let identity = agent.and_then(|agent| segment.identify(agent));
        let agent = identity.map_or_else(|| "nobody".to_owned(), |thread| format!("pid {}", thread.pid));
        rows.add_row([domain.to_string(), peer.to_string(), agent]);
    }
    print(format_args!("\n{}", table::show(&rows)))?;
    Ok(())
}

/// The robust locks, and who stands behind each.
fn print_locks(found: &Found<'_>) -> anyhow::Result<()> {
    if found.locks.is_empty() {
        return Ok(());
    }
    let mut rows = table::new(["LOCK", "KIND", "WAITERS", "STATE"]);
    for lock in &found.locks {
        let (kind, waiters) = (lock.object.ty.kind.to_string(), lock.waiters.len().to_string());
        let long = if robust::is_long(lock, found.long) { "  LONG" } else { "" };
        rows.add_row([&lock.object.name, &kind, &waiters, &(robust::state(lock) + long)]);
    }
    print(format_args!("\n{}", table::show(&rows)))?;
    for lines in found.locks.iter().map(robust::queue).filter(|lines| !lines.is_empty()) {
        print(format_args!("\n{}", lines.join("\n")))?;
    }
    Ok(())
}

/// Spin locks, and what is no lock.
fn print_objects(found: &Found<'_>) -> anyhow::Result<()> {
    let mut others = found.objects.iter().filter(|object| found.lock(object).is_none()).peekable();
    if others.peek().is_none() {
        return Ok(());
    }
    let mut rows = table::new(["OBJECT", "KIND", "BYTES", "OFFSET", "WORD", "STATE"]);
    for object in others {
        let ObjectInfo { name, ty, offset, word, .. } = object;
        let state = spin_state(found, object).unwrap_or_default();
        let (kind, size) = (ty.kind.to_string(), ty.size.to_string());
        rows.add_row([name, &kind, &size, &format!("{offset:#x}"), &format!("{word:#010x}"), &state]);
    }
    print(format_args!("\n{}", table::show(&rows)))?;
    Ok(())
}

fn print_participants(participants: &[Participant]) -> anyhow::Result<()> {
    if participants.is_empty() {
        return Ok(());
    }
    let mut rows = table::new(["CPU", "PID", "TID", "NAME", "STATE", "WAITS IN", "EVENTS"]);
    for participant in participants {
        let Participant { slot, pid, tid, name, depth, .. } = participant;
        let numbers = [slot.index().to_string(), pid.to_string(), tid.to_string()];
        let [slot, pid, tid] = &numbers;
        let events: Vec<_> =
            json::events(participant).map(|(name, count)| format!("{name} {count}")).collect();
        rows.add_row([
            slot,
            pid,
            tid,
            name,
            liveness(participant),
            &format!("{depth} queues"),
            &events.join(", "),
        ]);
    }
    print(format_args!("\n{}", table::show(&rows)))?;
    Ok(())
}
