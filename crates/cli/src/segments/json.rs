//! What `inspect`, `repair` and `unlock` say to programs.

use core::time::Duration;

use crosslock::crosslock_core::Event;
use crosslock::{DomainInfo, LockInfo, LockWords, ObjectInfo, Participant, Party};
use serde_json::{Map, Value, json};

use super::found::{Found, liveness, uuid};
use super::people::is_elsewhere;
use super::robust;
use super::spin::State;

/// All of it.
pub(super) fn segment(found: &Found<'_>) -> anyhow::Result<Value> {
    let Found { name, segment, .. } = found;
    Ok(json!({
        "name": name,
        "uuid": uuid(segment),
        "size": segment.size(),
        "heap_used": segment.heap_used()?,
        "heap_size": segment.heap_size(),
        "slots": segment.slots(),
        "temporary": segment.is_temporary(),
        "domains": segment.domains().iter().filter(|domain| domain.is_alive).map(domain).collect::<Vec<_>>(),
        "objects": found.objects.iter().map(|one| object(found, one)).collect::<Vec<_>>(),
        "participants": found.participants.iter().map(participant).collect::<Vec<_>>(),
    }))
}

/// A kernel that takes part.
fn domain(domain: &DomainInfo) -> Value {
    json!({ "domain": domain.domain, "peer": domain.peer, "is_served": domain.agent.is_some() })
}

/// One object; `lock` is what a robust lock says, and null for all others.
pub(super) fn object(found: &Found<'_>, object: &ObjectInfo) -> Value {
    let robust = found.lock(object);
    let state = match robust {
        Some(lock) => Some(robust::state(lock)),
        None => State::of(object).map(|state| state.to_string()),
    };
    json!({
        "name": object.name,
        "kind": object.ty.kind.to_string(),
        "size": object.ty.size,
        "fingerprint": object.ty.fingerprint,
        "offset": object.offset,
        "word": object.word,
        "state": state,
        "last_waiter": super::spin::last_waiter(object).map(|cpu| cpu.index()),
        "lock": robust.map(|robust| lock(robust, found.long)),
    })
}

/// A robust lock. Its words are texts: most readers of JSON know no integers of 64 bits.
pub(crate) fn lock(lock: &LockInfo, long: Duration) -> Value {
    let LockWords { owner, attention, tickets, drain, writing, .. } = lock.words;
    let waiters = lock.waiters.iter().map(|waiter| {
        let mut one = party(&waiter.party);
        one["waiting_ns"] = waiter.waiting_for.map(ns).into();
        one
    });
    json!({
        "state": robust::keyword(lock),
        "owner": lock.owner.as_ref().map(party),
        "held_ns": lock.held_for.map(ns),
        "long": robust::is_long(lock, long),
        "owner_died": lock.condition().map(|condition| condition.owner_died),
        "poisoned": lock.condition().map(|condition| condition.poisoned),
        "waiters": waiters.collect::<Vec<_>>(),
        "readers": lock.readers.iter().map(party).collect::<Vec<_>>(),
        "acquisitions": lock.stats.acquisitions,
        "contended": lock.stats.contended,
        "waited_ns": lock.stats.waited_ns,
        "words": {
            "owner": format!("{owner:#018x}"),
            "attention": format!("{attention:#018x}"),
            "tickets": tickets,
            "drain": format!("{drain:#018x}"),
            "writing": format!("{writing:#018x}"),
        },
    })
}

/// Somebody who has or wants a lock; `pid`, `tid` and `name` are null where the slot has been given to another.
pub(crate) fn party(party: &Party) -> Value {
    let identity = party.identity.as_ref();
    json!({
        "cpu": party.name.slot().index(),
        "incarnation": party.name.incarnation(),
        "pid": identity.map(|thread| thread.pid),
        "tid": identity.map(|thread| thread.tid),
        "name": identity.map(|thread| &thread.thread),
        "alive": party.is_alive,
        "other_pid_namespace": is_elsewhere(party),
    })
}

fn participant(participant: &Participant) -> Value {
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
}

/// The events that happened, the sums of nanoseconds left out.
pub(super) fn events(participant: &Participant) -> impl Iterator<Item = (&'static str, u64)> {
    let sums = [Event::PvLatencyKick, Event::PvLatencyWake];
    let counted = Event::ALL.iter().filter(move |event| !sums.contains(event));
    counted.map(|event| (event.name(), participant.counters[event.index()])).filter(|&(_, count)| count != 0)
}

pub(crate) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
