//! Seats: where participants say what they wait for, and what they read. There are no links between them: who is before
//! whom follows from their tickets, so one that dies needs no repair, it is only not counted any more.

use super::{HAND_OVER_NS, NAP_NS, Name, RobustOps};
use crate::per_cpu::CpuId;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, const_new, zeroes};

/// Locks that a participant can have for reading at once.
pub const READS: usize = 8;

/// One participant's place in whatever queue it waits in; written by itself alone, but for the kicks.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Seat {
    /// The lock that it waits for, by [`LockKey`](crate::LockKey); 0: none.
    pub(crate) key: AtomicU64,
    /// Its turn: who has the lowest is the head.
    pub(crate) ticket: AtomicU64,
    /// Bits of the [`Name`](crate::Name) on whose kick or death it sleeps.
    pub(crate) watches: AtomicU64,
    /// When it began to wait, in the nanoseconds of [`RobustOps::now_ns`](crate::RobustOps::now_ns).
    pub(crate) since_ns: AtomicU64,
    kicks: AtomicU32,
    /// Written by who kicks it: until when it may be passed over.
    patient_until_ns: AtomicU64,
    reads: Reads,
}

/// Keys of the locks that the participant reads under, one for each time; 0: none. Alone on its cache line.
#[repr(C, align(64))]
#[derive(Debug)]
struct Reads([AtomicU64; READS]);

impl Seat {
    const_new! {
        /// Of nobody.
        pub fn new() -> Self {
            Self {
                key: AtomicU64::new(0),
                ticket: AtomicU64::new(0),
                watches: AtomicU64::new(0),
                since_ns: AtomicU64::new(0),
                kicks: AtomicU32::new(0),
                patient_until_ns: AtomicU64::new(0),
                reads: Reads(zeroes()),
            }
        }
    }

    /// How often its participant has been kicked: the word on which it sleeps. A sleeper reads it, looks
    /// whether it must wait, and sleeps while it is unchanged; a kick adds 1 and wakes.
    #[must_use]
    pub fn kicks(&self) -> &AtomicU32 {
        &self.kicks
    }

    /// By who kicks it at `now_ns`: it comes, so others may pass for a while.
    pub(crate) fn be_patient(&self, now_ns: u64) {
        self.patient_until_ns.store(now_ns.saturating_add(HAND_OVER_NS), Ordering::Relaxed);
    }

    /// Whether one that has been kicked may still be passed over at `now_ns`.
    ///
    /// Whoever kicked it may have another clock, that of another kernel. Such a time means nothing here, and is replaced.
    pub(crate) fn is_patient(&self, now_ns: u64) -> bool {
        let until_ns = self.patient_until_ns.load(Ordering::Relaxed);
        if until_ns.abs_diff(now_ns) > NAP_NS {
            self.be_patient(now_ns);
            return true;
        }
        now_ns < until_ns
    }

    /// Gets up and reads nothing any more, on behalf of a participant that is dead.
    pub fn clear(&self) {
        self.key.store(0, Ordering::Release);
        for read in &self.reads.0 {
            read.store(0, Ordering::Release);
        }
    }

    /// Whether the participant reads under the lock of that key.
    #[must_use]
    pub fn reads(&self, key: u64) -> bool {
        // Acquire: pairs with the Release of who stops reading; its reads are over.
        self.reads.0.iter().any(|read| read.load(Ordering::Acquire) == key)
    }

    /// Where the first of those reads, or with key 0 the first free place, is noted.
    pub(crate) fn read(&self, key: u64) -> Option<&AtomicU64> {
        self.reads.0.iter().find(|read| read.load(Ordering::Relaxed) == key)
    }

    /// The key of the lock that its participant waits for; 0: none.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key.load(Ordering::Acquire)
    }

    /// On whose kick or death its participant sleeps, if it waits for somebody.
    #[must_use]
    pub fn watched(&self) -> Option<Name> {
        Name::from_bits(self.watches.load(Ordering::Relaxed))
    }

    /// Its turn among those who wait for the same lock.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    /// When its participant began to wait, on the clock of the platform.
    #[must_use]
    pub fn since_ns(&self) -> u64 {
        self.since_ns.load(Ordering::Relaxed)
    }
}

/// Those who sit as `wanted`, and live.
pub(super) fn living<C: RobustOps>(
    cx: &C,
    wanted: impl Fn(&Seat) -> bool,
) -> impl Iterator<Item = (Name, &Seat)> {
    // First what is wanted: whether they live costs more.
    cx.seats().iter().enumerate().filter(move |(_, seat)| wanted(seat)).filter_map(|(slot, seat)| {
        let name = cx.name_of(CpuId::new(slot)?)?;
        (!cx.is_dead(name)).then_some((name, seat))
    })
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}
