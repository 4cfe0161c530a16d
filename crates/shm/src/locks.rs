//! Who has the robust locks of a segment, and who waits for them: for people and tools. Looking works on read-only
//! segments, and believes nothing.

use core::time::Duration;

use crosslock_core::{
    Corrupted, CpuId, Name, Ownership, RawRobust, RawRobustRw, RobustOps, RobustStats, Seat,
};

use crate::directory::{Entry, Kind, Object};
use crate::error::{Error, Result};
use crate::inspect::ObjectInfo;
use crate::segment::{Segment, SegmentContext};
use crate::{mutex, rwlock};

/// A robust lock as somebody found it who looked on; old news when it arrives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockInfo {
    /// The mutex or reader-writer lock.
    pub object: ObjectInfo,
    /// What the owner word says: of a reader-writer lock, who writes.
    pub ownership: core::result::Result<Ownership, Corrupted>,
    /// Who owns it, or is to have it next.
    pub owner: Option<Party>,
    /// Who reads under it.
    pub readers: Vec<Party>,
    /// Who waits, in the order of their turns.
    pub waiters: Vec<Waiter>,
    /// For how long the owner has had it, at least. `None` where nobody owns it, or nobody noticed.
    pub held_for: Option<Duration>,
    /// What has happened to it.
    pub stats: RobustStats,
}

/// Somebody who has or wants a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Party {
    /// Which participant of the segment.
    pub name: Name,
    /// Whether it lives, proven by the kernel.
    pub is_alive: bool,
}

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Who.
    pub party: Party,
    /// For how long.
    pub waiting_for: Duration,
}

/// What [`Segment::repair`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Which object.
    pub object: String,
    /// Who had it, and is dead.
    pub owner: Option<Name>,
}

/// A robust lock in the segment.
enum Found<'a> {
    Mutex(&'a RawRobust),
    RwLock(&'a RawRobustRw),
}

impl<'a> Found<'a> {
    fn of(segment: &'a SegmentContext, object: &Object) -> Option<Self> {
        let range = segment.checked_range(object).ok()?;
        let is = |kind, size| object.ty.kind == Kind::new(kind) && range.len() >= size;
        if is(mutex::KIND, size_of::<RawRobust>()) {
            Some(Self::Mutex(segment.mapping().at(range.start)))
        } else if is(rwlock::KIND, size_of::<RawRobustRw>()) {
            Some(Self::RwLock(segment.mapping().at(range.start)))
        } else {
            None
        }
    }

    fn raw(&self) -> &'a RawRobust {
        match self {
            Self::Mutex(lock) => lock,
            Self::RwLock(lock) => lock.gate(),
        }
    }
}

impl SegmentContext {
    fn robust_locks(&self) -> impl Iterator<Item = (Object, Found<'_>)> {
        let objects = self.entries().iter().filter_map(Entry::ready);
        objects.filter_map(|object| Found::of(self, &object).map(|found| (object, found)))
    }

    fn party(&self, name: Name) -> Party {
        Party { name, is_alive: !self.is_dead(name) }
    }

    fn seated(&self) -> impl Iterator<Item = (Name, &Seat)> {
        let named = |(slot, seat)| Some((self.name_of(CpuId::new(slot)?)?, seat));
        self.seats().iter().enumerate().filter_map(named)
    }

    fn look_at(&self, object: &Object, found: &Found<'_>) -> LockInfo {
        let (lock, now) = (found.raw(), self.now_ns());
        let key = lock.key(self);
        let mut waiting: Vec<_> = self.seated().filter(|(_, seat)| seat.key() == key).collect();
        waiting.sort_by_key(|(_, seat)| seat.ticket());
        let waiter = |(name, seat): (Name, &Seat)| Waiter {
            party: self.party(name),
            waiting_for: Duration::from_nanos(now.saturating_sub(seat.since_ns())),
        };
        let readers = match found {
            Found::Mutex(_) => Vec::new(),
            Found::RwLock(_) => self.seated().filter(|(_, seat)| seat.reads(key)).collect(),
        };
        let (ownership, stats) = (lock.ownership(), lock.stats());
        let owner = match ownership {
            Ok(Ownership::Held(name, _) | Ownership::Reserved(name)) => Some(name),
            _ => None,
        };
        let is_held = matches!(ownership, Ok(Ownership::Held(..)));
        let since = stats.held_since_ns.filter(|_| is_held);
        LockInfo {
            object: ObjectInfo::of(self, object),
            ownership,
            owner: owner.map(|name| self.party(name)),
            readers: readers.into_iter().map(|(name, _)| self.party(name)).collect(),
            waiters: waiting.into_iter().map(waiter).collect(),
            held_for: since.map(|since| Duration::from_nanos(now.saturating_sub(since))),
            stats,
        }
    }
}

impl Segment {
    /// All robust locks, in the order of the directory.
    #[must_use]
    pub fn locks(&self) -> Vec<LockInfo> {
        let cx = self.inner();
        cx.robust_locks().map(|(object, found)| cx.look_at(&object, &found)).collect()
    }

    /// Frees every robust lock whose owner is dead, and wakes those who wait; the next owner of each is told that the
    /// data may be half changed.
    ///
    /// Nobody needs this in order to go on: whoever asks for such a lock gets it. It is for
    /// people who want to see none.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn repair(&self) -> Result<Vec<Repaired>> {
        let cx = self.context()?;
        let mut repaired = Vec::new();
        for (object, found) in cx.robust_locks() {
            let owner = match found.raw().ownership() {
                Ok(Ownership::Held(name, _)) => Some(name),
                _ => None,
            };
            if found.raw().repair(cx).unwrap_or(false) {
                repaired.push(Repaired { object: object.name.to_string(), owner });
            }
        }
        Ok(repaired)
    }

    /// Takes the robust lock `object` away from its owner, dead or alive, or puts its word in order if that says nothing or
    /// that the data are given up; gives whether it was in any of these states. The next owner is told that
    /// the data may be half changed.
    ///
    /// An owner that lives goes on as if it had the lock, until its release fails: for people who know that it will not.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSuchObject`].
    pub fn force_unlock(&self, object: &str) -> Result<bool> {
        let cx = self.context()?;
        let found = cx.robust_locks().find(|(found, _)| found.name.to_string() == object);
        let missing = || Error::NoSuchObject { name: object.into(), kind: Kind::new(mutex::KIND) };
        Ok(found.ok_or_else(missing)?.1.raw().evict(cx))
    }
}
