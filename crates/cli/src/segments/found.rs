//! What there is in a segment, and short words for it.

use core::time::Duration;

use crosslock::{Liveness, LockInfo, ObjectInfo, Participant, Segment};

use super::spin::{State, last_waiter};

/// What there was when somebody looked.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) long: Duration,
    pub(super) segment: Segment,
    pub(super) participants: Vec<Participant>,
    pub(super) objects: Vec<ObjectInfo>,
    pub(super) locks: Vec<LockInfo>,
}

impl Found<'_> {
    /// The robust lock that the object is, if it is one.
    pub(super) fn lock(&self, object: &ObjectInfo) -> Option<&LockInfo> {
        self.locks.iter().find(|lock| lock.object.offset == object.offset)
    }

    /// The last waiter of a spin lock, where it says so.
    pub(super) fn last_waiter(&self, object: &ObjectInfo) -> Option<&Participant> {
        let cpu = last_waiter(object)?;
        self.participants.iter().find(|participant| participant.slot == cpu)
    }
}

/// What a spin lock says, its last waiter named.
pub(super) fn spin_state(found: &Found<'_>, object: &ObjectInfo) -> Option<String> {
    let state = State::of(object)?.to_string();
    Some(match found.last_waiter(object) {
        Some(Participant { pid, tid, .. }) => format!("{state}; last waiter pid {pid} tid {tid}"),
        None => state,
    })
}

pub(super) fn liveness(participant: &Participant) -> &'static str {
    match participant.liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Wedged => "dead in a queue",
    }
}

pub(super) fn uuid(segment: &Segment) -> String {
    segment.uuid().iter().map(|byte| format!("{byte:02x}")).collect()
}
