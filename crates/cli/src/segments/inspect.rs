//! `crosslock inspect`: who is in a segment, and what its locks say; reads only.

use core::fmt;

use crosslock::crosslock_core::{CpuId, Event, LockType, QWord};
use crosslock::{Liveness, ObjectInfo, Participant, Segment};
use serde_json::{Map, Value, json};

use super::{human, table};
use crate::exit::Verdict;
use crate::kind::{LockKind, with_lock};

/// Show what is in a segment: participants, objects, and each lock's word decoded
///
/// Maps the segment read-only: nothing in it is disturbed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Its name
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<Verdict> {
    let segment = Segment::open_read_only(&args.name)?;
    let participants = segment.participants()?;
    let objects = segment.objects();
    if args.json {
        let object = as_json(&args.name, &segment, &participants, &objects)?;
        println!("{object}");
    } else {
        print_for_people(&args.name, &segment, &participants, &objects)?;
    }
    Ok(Verdict::Good)
}

/// What a lock of that kind says; `None` where it is no lock that this program knows.
struct State(fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result, u32);

impl State {
    fn of(object: &ObjectInfo) -> Option<Self> {
        let named = |kind: &&LockKind| with_lock!(kind, L => L::NAME) == object.ty.kind.to_string();
        let kind = LockKind::FAMILY.iter().find(named)?;
        with_lock!(kind, L => Some(Self(L::describe, object.word)))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(self.1, f)
    }
}

/// The last waiter, where the lock is one that names it.
fn last_waiter(object: &ObjectInfo) -> Option<CpuId> {
    let kind = object.ty.kind.to_string();
    let has_tail = kind == "qspinlock" || kind == "pvqspinlock";
    let tail = has_tail.then(|| QWord::from_bits(object.word).tail().ok().flatten()).flatten();
    tail.map(|node| node.cpu())
}

fn liveness(participant: &Participant) -> &'static str {
    match participant.liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Wedged => "dead in a queue",
    }
}

fn uuid(segment: &Segment) -> String {
    segment.uuid().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn print_for_people(
    name: &str,
    segment: &Segment,
    participants: &[Participant],
    objects: &[ObjectInfo],
) -> anyhow::Result<()> {
    let (used, heap) = (human(segment.heap_used()? as u64), human(segment.heap_size() as u64));
    println!("segment {name}, {}, uuid {}", human(segment.size() as u64), uuid(segment));
    println!("heap {used} of {heap}; {} of {} participants", participants.len(), segment.slots());
    if !objects.is_empty() {
        let mut rows = table::new(["OBJECT", "KIND", "BYTES", "OFFSET", "WORD", "STATE"]);
        for object in objects {
            let ObjectInfo { name, ty, offset, word, .. } = object;
            let mut state = State::of(object).map(|state| state.to_string()).unwrap_or_default();
            let waiter = last_waiter(object)
                .and_then(|cpu| participants.iter().find(|participant| participant.slot == cpu));
            if let Some(Participant { pid, tid, .. }) = waiter {
                state += &format!("; last waiter pid {pid} tid {tid}");
            }
            let (kind, size) = (ty.kind.to_string(), ty.size.to_string());
            rows.add_row([name, &kind, &size, &format!("{offset:#x}"), &format!("{word:#010x}"), &state]);
        }
        println!("\n{}", table::show(&rows));
    }
    if !participants.is_empty() {
        let mut rows = table::new(["CPU", "PID", "TID", "NAME", "STATE", "WAITS IN", "EVENTS"]);
        for participant in participants {
            let Participant { slot, pid, tid, name, depth, .. } = participant;
            let numbers = [slot.index().to_string(), pid.to_string(), tid.to_string()];
            let [slot, pid, tid] = &numbers;
            let events: Vec<_> = events(participant).map(|(name, count)| format!("{name} {count}")).collect();
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
        println!("\n{}", table::show(&rows));
    }
    Ok(())
}

/// The events that happened, the sums of nanoseconds left out.
fn events(participant: &Participant) -> impl Iterator<Item = (&'static str, u64)> {
    let sums = [Event::PvLatencyKick, Event::PvLatencyWake];
    let counted = Event::ALL.iter().filter(move |event| !sums.contains(event));
    counted.map(|event| (event.name(), participant.counters[event.index()])).filter(|&(_, count)| count != 0)
}

fn as_json(
    name: &str,
    segment: &Segment,
    participants: &[Participant],
    objects: &[ObjectInfo],
) -> anyhow::Result<Value> {
    let objects: Vec<_> = objects
        .iter()
        .map(|object| {
            json!({
                "name": object.name,
                "kind": object.ty.kind.to_string(),
                "size": object.ty.size,
                "fingerprint": object.ty.fingerprint,
                "offset": object.offset,
                "word": object.word,
                "state": State::of(object).map(|state| state.to_string()),
                "last_waiter": last_waiter(object).map(CpuId::index),
            })
        })
        .collect();
    let participants: Vec<_> = participants
        .iter()
        .map(|participant| {
            let events: Map<String, Value> =
                events(participant).map(|(name, count)| (name.to_owned(), count.into())).collect();
            json!({
                "cpu": participant.slot.index(),
                "incarnation": participant.incarnation,
                "pid": participant.pid,
                "tid": participant.tid,
                "name": participant.name,
                "state": liveness(participant),
                "registered_ns": participant.registered_ns,
                "queues": participant.depth,
                "events": events,
            })
        })
        .collect();
    Ok(json!({
        "name": name,
        "uuid": uuid(segment),
        "size": segment.size(),
        "heap_used": segment.heap_used()?,
        "heap_size": segment.heap_size(),
        "slots": segment.slots(),
        "temporary": segment.is_temporary(),
        "objects": objects,
        "participants": participants,
    }))
}
