//! What the word of a spin lock says.

use core::fmt;

use crosslock::ObjectInfo;
use crosslock::crosslock_core::{CpuId, LockType, QWord};

use crate::kind::{LockKind, with_lock};

/// What a lock of that kind says; `None` where it is no spin lock that this program knows.
pub(crate) struct State(fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result, u32);

impl State {
    pub(crate) fn of(object: &ObjectInfo) -> Option<Self> {
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
pub(super) fn last_waiter(object: &ObjectInfo) -> Option<CpuId> {
    let kind = object.ty.kind.to_string();
    let has_tail = kind == "qspinlock" || kind == "pvqspinlock";
    let tail = has_tail.then(|| QWord::from_bits(object.word).tail().ok().flatten()).flatten();
    tail.map(|node| node.cpu())
}
