//! One object, with all that is known of it.

use core::fmt::Write;
use core::time::Duration;

use crosslock::crosslock_core::{LockType, Name, Ownership, RawRobust};
use crosslock::{LockInfo, LockWords, ObjectInfo};

use super::found::{Found, spin_state};
use super::people::{who, who_lives};
use super::time::span;
use super::{human, robust};

pub(super) fn text(found: &Found<'_>, object: &ObjectInfo) -> String {
    let ObjectInfo { name, ty, offset, word, .. } = object;
    let mut lines = vec![format!("{name}: {}, {} at {offset:#x} of {}", ty.kind, human(ty.size), found.name)];
    let mut say = |label: &str, said: String| lines.push(format!("{label:<13} {said}"));
    let Some(lock) = found.lock(object) else {
        say("state", spin_state(found, object).unwrap_or_else(|| "no lock that this program knows".into()));
        say("word", format!("{word:#010x}"));
        return lines.join("\n");
    };
    let long = if robust::is_long(lock, found.long) { "  LONG" } else { "" };
    say("state", robust::state(lock) + long);
    say("held", held(lock));
    if let Some(advice) = robust::advice(found.name, lock) {
        say("to do", advice);
    }
    say("acquired", lock.stats.acquisitions.to_string());
    say("contended", contended(lock));
    words(lock, &mut say);
    lines.extend(robust::queue(lock));
    lines.join("\n")
}

fn held(lock: &LockInfo) -> String {
    match (lock.ownership, lock.held_for) {
        (Ok(Ownership::Held(..)), Some(time)) => {
            format!("for at least {}: since somebody first waited for this owner", span(time))
        }
        (Ok(Ownership::Held(..)), None) => {
            "nobody has waited for this owner, so nobody looked at a clock".into()
        }
        _ => "by nobody".into(),
    }
}

fn contended(lock: &LockInfo) -> String {
    let stats = lock.stats;
    let mut said = stats.contended.to_string();
    if stats.acquisitions > 0 && stats.contended > 0 {
        let percent = 100.0 * stats.contended as f64 / stats.acquisitions as f64;
        let waited = Duration::from_nanos(stats.waited_ns);
        let mean = Duration::from_nanos(stats.waited_ns / stats.contended);
        // A `String` takes whatever is written.
        let _ = write!(said, " ({percent:.1} %), waited {}, {} each", span(waited), span(mean));
    }
    said
}

/// Each word as it is, and what it says.
fn words(lock: &LockInfo, say: &mut impl FnMut(&str, String)) {
    let LockWords { owner, attention, tickets, drain, writing, .. } = lock.words;
    let said = match lock.ownership {
        Ok(ownership) => ownership.to_string(),
        Err(garbage) => garbage.to_string(),
    };
    say("owner word", format!("{owner:#018x}  {said}"));
    say("attention", format!("{attention:#018x}  {}", attends(lock, attention)));
    say("tickets", format!("{tickets:<18}  waits begun"));
    if lock.is_rwlock() {
        say("drain", format!("{drain:#018x}  {}", names(lock, drain, "waits for readers to leave")));
        say("writing", format!("{writing:#018x}  {}", names(lock, writing, "has begun to write")));
    }
}

/// The low bits of the attention word name a slot as those of the owner word do.
fn attends(lock: &LockInfo, attention: u64) -> String {
    struct Slot(u64);
    impl core::fmt::Display for Slot {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is described")]
            RawRobust::describe(self.0 as u32, f)
        }
    }
    let slot = Slot(attention).to_string();
    let waiter = lock.waiters.iter().find(|waiter| Slot(waiter.party.name.bits()).to_string() == slot);
    let slot = waiter.map_or(slot, |waiter| who(&waiter.party));
    match (attention, attention >> 29 & 7) {
        (0, _) => "nobody is to be woken".into(),
        (_, 1) => format!("the next release kicks {slot}"),
        (_, 2) => format!("the next release reserves the lock for {slot}"),
        (_, 3) => format!("the next release reserves the lock for {slot}, and kicks it"),
        (_, 4) => format!("{slot} has been kicked"),
        _ => "says nothing that a waiter asks".into(),
    }
}

fn names(lock: &LockInfo, word: u64, deed: &str) -> String {
    match (Name::from_bits(word), &lock.owner) {
        (Some(name), Some(owner)) if owner.name == name => format!("{} {deed}", who_lives(owner)),
        (Some(name), _) => format!("{name} {deed}"),
        (None, _) if word == 0 => "nobody".into(),
        (None, _) => "garbage".into(),
    }
}
