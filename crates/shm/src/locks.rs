//! Who has the robust locks of a segment, and who waits for them: for people and tools. Looking works on read-only
//! segments, and believes nothing.

use core::time::Duration;

use crosslock_core::primitive::{AtomicU64, Ordering};
use crosslock_core::{
    Condition, Corrupted, CpuId, LockType, Name, Ownership, RawRobust, RawRobustRw, RobustOps, RobustStats,
    Seat,
};

use crate::directory::{Entry, Kind, Object};
use crate::error::{Error, Result};
use crate::inspect::{Identity, ObjectInfo};
use crate::segment::{Segment, SegmentContext};

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
    /// For how long the owner has had it, at least. `None` where nobody owns it, nobody noticed,
    /// or several domains share the segment, each with another clock.
    pub held_for: Option<Duration>,
    /// What has happened to it.
    pub stats: RobustStats,
    /// Its words as they are.
    pub words: LockWords,
}

impl LockInfo {
    /// Whether it is a [`RwLock`](crate::RwLock).
    #[must_use]
    pub fn is_rwlock(&self) -> bool {
        self.object.ty.kind == Kind::new(RawRobustRw::NAME)
    }

    /// In what condition the next owner will find the data, if nothing happens until then; the death of the present one is
    /// counted. `None` where nobody will get the lock.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let is_dead = self.owner.as_ref().is_some_and(|owner| !owner.is_alive);
        let found = match self.ownership {
            Ok(Ownership::Free(condition)) => condition,
            Ok(Ownership::Held(_, condition)) => {
                Condition { owner_died: condition.owner_died || is_dead, ..condition }
            }
            Ok(Ownership::Reserved(_)) => Condition::CONSISTENT,
            Ok(Ownership::Lost) | Err(_) => return None,
        };
        // Who dies before it writes has changed nothing.
        let is_touched = !self.is_rwlock() || self.words.writing != 0;
        Some(Condition { owner_died: found.owner_died && is_touched, ..found })
    }
}

/// The words of a robust lock, as `docs/lock-words.md` describes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockWords {
    /// Who owns it; [`LockInfo::ownership`] says it.
    pub owner: u64,
    /// Whom the next release looks after; 0: nobody.
    pub attention: u64,
    /// How often somebody has begun to wait.
    pub tickets: u64,
    /// Of a reader-writer lock the [`Name`] of the writer that waits for readers to leave; 0: none.
    pub drain: u64,
    /// Of a reader-writer lock the [`Name`] of the writer that is changing the data; 0: none.
    pub writing: u64,
}

/// Somebody who has or wants a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Party {
    /// Which participant of the segment.
    pub name: Name,
    /// Which thread that is or was; `None` where its slot has been given to another since.
    pub identity: Option<Identity>,
    /// Whether it lives, proven by the kernel.
    pub is_alive: bool,
}

/// Somebody who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Who.
    pub party: Party,
    /// For how long; `None` where it is in another domain, which has another clock.
    pub waiting_for: Option<Duration>,
}

/// What [`Segment::repair`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Which object.
    pub object: String,
    /// Who had it, and is dead.
    pub owner: Option<Party>,
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
        if is(RawRobust::NAME, size_of::<RawRobust>()) {
            Some(Self::Mutex(segment.mapping().at(range.start)))
        } else if is(RawRobustRw::NAME, size_of::<RawRobustRw>()) {
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
        Party {
            name,
            identity: self.identity(name),
            is_alive: !self.is_dead(name) && !self.is_abandoned(name),
        }
    }

    /// The words of the lock at the start of a checked object.
    fn words(&self, object: &Object, found: &Found<'_>) -> LockWords {
        let start = self.checked_range(object).map_or(0, |range| range.start);
        let word = |at| self.mapping().at::<AtomicU64>(start + at).load(Ordering::Relaxed);
        let of_rwlock = |at| if matches!(found, Found::RwLock(_)) { word(at) } else { 0 };
        LockWords {
            owner: word(0),
            attention: word(8),
            tickets: word(16),
            drain: of_rwlock(size_of::<RawRobust>()),
            writing: of_rwlock(size_of::<RawRobust>() + 8),
        }
    }

    fn seated(&self) -> impl Iterator<Item = (Name, &Seat)> {
        let named = |(slot, seat)| Some((self.name_of(CpuId::new(slot)?)?, seat));
        self.seats().iter().enumerate().filter_map(named)
    }

    fn look_at(&self, object: &Object, found: &Found<'_>) -> LockInfo {
        let (lock, now) = (found.raw(), self.now_ns());
        let key = lock.key(self);
        let ago = |since_ns: u64| Duration::from_nanos(now.saturating_sub(since_ns));
        let (stats, words) = (lock.stats(), self.words(object, found));
        let ownership = Ownership::decode(words.owner);
        let (owner, is_held) = match ownership {
            Ok(Ownership::Held(name, _)) => (Some(name), true),
            Ok(Ownership::Reserved(name)) => (Some(name), false),
            _ => (None, false),
        };
        // Who has just got it may still sit.
        let waits = |(name, seat): &(Name, &Seat)| seat.key() == key && !(is_held && owner == Some(*name));
        let mut waiting: Vec<_> = self.seated().filter(waits).collect();
        waiting.sort_by_key(|(_, seat)| seat.ticket());
        let waiter = |(name, seat): (Name, &Seat)| Waiter {
            party: self.party(name),
            waiting_for: self.is_near(name.slot()).then(|| ago(seat.since_ns())),
        };
        let readers: Vec<_> = match found {
            Found::Mutex(_) => Vec::new(),
            Found::RwLock(_) => self.seated().filter(|(_, seat)| seat.reads(key)).collect(),
        };
        // 0: nobody has ever looked.
        let since = stats.held_since_ns.filter(|&since_ns| is_held && since_ns != 0);
        // By the clock of whoever noticed.
        let since = since.filter(|_| self.geometry().domains == 1);
        LockInfo {
            object: ObjectInfo::of(self, object),
            ownership,
            owner: owner.map(|name| self.party(name)),
            readers: readers.into_iter().map(|(name, _)| self.party(name)).collect(),
            waiters: waiting.into_iter().map(waiter).collect(),
            held_for: since.map(ago),
            stats,
            words,
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
    /// [`Error::ReadOnly`], [`Error::Busy`], [`Error::Io`].
    pub fn repair(&self) -> Result<Vec<Repaired>> {
        let cx = self.context()?;
        let mut repaired = Vec::new();
        for (object, found) in cx.robust_locks() {
            let owner = match found.raw().ownership() {
                Ok(Ownership::Held(name, _)) => Some(cx.party(name)),
                _ => None,
            };
            if let Some(owner) = &owner {
                cx.bury(owner.name)?;
            }
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
        let missing = || Error::NoSuchObject { name: object.into(), kind: Kind::new(RawRobust::NAME) };
        let lock = found.ok_or_else(missing)?.1.raw();
        Ok(lock.evict(cx, lock.owner_word().load(Ordering::Relaxed)))
    }
}
