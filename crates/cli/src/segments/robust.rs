//! What a robust lock says, in words: who has it, who waits, and what to do about it.

use core::time::Duration;

use crosslock::crosslock_core::{Condition, Ownership};
use crosslock::{LockInfo, Party};

use super::people::{who, who_lives};
use super::time::span;

/// The state in one word, for programs.
pub(crate) fn keyword(lock: &LockInfo) -> &'static str {
    match (&lock.ownership, &lock.owner) {
        (Ok(Ownership::Held(..)), Some(Party { is_alive: false, .. })) => "owner dead",
        (Ok(Ownership::Held(..)), _) => "held",
        (Ok(Ownership::Reserved(_)), _) => "reserved",
        (Ok(Ownership::Free(_)), _) if readers(lock) > 0 => "read",
        (Ok(Ownership::Free(_)), _) => "free",
        (Ok(Ownership::Lost), _) => "not recoverable",
        (Err(_), _) => "damaged",
    }
}

/// The state in a line.
pub(crate) fn state(lock: &LockInfo) -> String {
    let told = remark(lock.condition().unwrap_or_default());
    match (&lock.ownership, &lock.owner) {
        (Ok(Ownership::Held(..)), Some(owner)) if owner.is_alive => {
            let since = lock.held_for.map(|time| format!(", for >= {}", span(time))).unwrap_or_default();
            format!("{} {}{since}{told}", deed(lock, owner), who_lives(owner))
        }
        (Ok(Ownership::Held(..)), Some(owner)) => {
            format!("owner dead: {}; {}", who(owner), whether_told(lock))
        }
        (Ok(Ownership::Reserved(_)), Some(heir)) => format!("free, reserved for {}", who_lives(heir)),
        (Ok(Ownership::Free(_)), _) if readers(lock) > 0 => format!("read by {}{told}", count_readers(lock)),
        (Ok(Ownership::Free(_)), _) => format!("free{told}"),
        (Ok(Ownership::Lost), _) => "not recoverable: an owner died inside, and the next gave up".into(),
        _ => format!("damaged: owner word {:#x} says nothing", lock.words.owner),
    }
}

/// What the living owner does.
fn deed(lock: &LockInfo, owner: &Party) -> String {
    let name = owner.name.bits();
    let others = lock.readers.iter().filter(|reader| reader.is_alive && reader.name != owner.name).count();
    if lock.is_rwlock() && lock.words.writing == name {
        "written by".into()
    } else if lock.is_rwlock() && lock.words.drain == name && others > 0 {
        format!("{others} read, awaited by")
    } else {
        "held by".into()
    }
}

fn whether_told(lock: &LockInfo) -> &'static str {
    match lock.condition() {
        Some(condition) if condition.owner_died => "the next one is told",
        _ => "it had changed nothing",
    }
}

/// What the next owner is told.
fn remark(condition: Condition) -> &'static str {
    match (condition.owner_died, condition.poisoned) {
        (false, false) => "",
        (true, false) => ", an owner died inside",
        (false, true) => ", an owner panicked inside",
        (true, true) => ", owners died and panicked inside",
    }
}

/// Readers that live; the dead are in nobody's way.
pub(crate) fn readers(lock: &LockInfo) -> usize {
    lock.readers.iter().filter(|reader| reader.is_alive).count()
}

fn count_readers(lock: &LockInfo) -> String {
    let mut alive = lock.readers.iter().filter(|reader| reader.is_alive);
    match (alive.next(), alive.count()) {
        (Some(reader), 0) => who_lives(reader),
        (_, more) => (more + 1).to_string(),
    }
}

/// Whether somebody has it for longer than that.
pub(crate) fn is_long(lock: &LockInfo, long: Duration) -> bool {
    lock.held_for.is_some_and(|time| time >= long)
}

/// Those behind a lock, a line each: who waits, in the order of their turns, and who reads.
pub(crate) fn queue(lock: &LockInfo) -> Vec<String> {
    let (mut lines, name) = (Vec::new(), &lock.object.name);
    if !lock.waiters.is_empty() {
        lines.push(format!("{name}: {} in the queue", lock.waiters.len()));
        lines.extend(lock.waiters.iter().enumerate().map(|(place, waiter)| {
            let time = waiter.waiting_for.map(|time| format!(", for {}", span(time))).unwrap_or_default();
            format!("  {:>2}. {}{time}", place + 1, who_lives(&waiter.party))
        }));
    }
    if !lock.readers.is_empty() {
        lines.push(format!("{name}: {} reading", lock.readers.len()));
        lines.extend(lock.readers.iter().map(|reader| format!("   -  {}", who_lives(reader))));
    }
    lines
}

/// What a person can do about it, if anything needs to be done.
pub(super) fn advice(segment: &str, lock: &LockInfo) -> Option<String> {
    let object = &lock.object.name;
    match keyword(lock) {
        "owner dead" => Some(format!(
            "nothing needs to be done: whoever asks next gets it; `crosslock repair {segment}` frees it now"
        )),
        "not recoverable" | "damaged" => Some(format!(
            "when the data are good again, `crosslock unlock {segment} {object} --force` lets others in"
        )),
        "held" if is_long(lock, Duration::from_secs(1)) => Some(format!(
            "the owner lives: ask or end that one; only if it will never touch the data again, \
             `crosslock unlock {segment} {object} --force`"
        )),
        _ => None,
    }
}
