//! Looks at a segment, and what happened between two of them.

use core::time::Duration;
use std::time::Instant;

use crosslock::crosslock_core::Ownership;
use crosslock::{Liveness, LockInfo, ObjectInfo, Segment};

/// What there was at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    locks: Vec<Seen>,
    /// Spin locks, and what is no lock.
    others: Vec<ObjectInfo>,
    alive: usize,
    dead: usize,
    is_named: bool,
}

/// A lock, and since when it has been seen in the same hands.
#[derive(Clone, Debug)]
struct Seen {
    lock: LockInfo,
    owned_since: Instant,
}

/// What happened from one sample to the next, and how it is now.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) locks: Vec<Row>,
    pub(super) others: Vec<ObjectInfo>,
    pub(super) alive: usize,
    pub(super) dead: usize,
    /// Whether others can still find the segment.
    pub(super) is_named: bool,
    /// Of what the rates are about; `None` before the second sample.
    pub(super) interval: Option<Duration>,
}

/// A robust lock.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) lock: LockInfo,
    /// For how long it has been held, as waiters or this program have noticed.
    pub(super) held: Option<Duration>,
    pub(super) rates: Option<Rates>,
}

/// What happened to a lock in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) acquired_per_s: f64,
    pub(super) contended_per_s: f64,
    /// Of 100 acquisitions; `None` where there were none.
    pub(super) contended_percent: Option<f64>,
    /// How many waited, in the mean: what they waited in the interval, in parts of it.
    pub(super) waiting: f64,
    /// Of those whose wait ended with the lock.
    pub(super) mean_wait: Option<Duration>,
}

impl Sample {
    /// Looks; `before` tells what has not changed since.
    pub(super) fn take(segment: &Segment, before: Option<&Self>) -> anyhow::Result<Self> {
        let participants = segment.participants()?;
        let alive = participants.iter().filter(|one| one.liveness == Liveness::Alive).count();
        let at = Instant::now();
        let locks = segment.locks();
        let is_robust = |object: &ObjectInfo| locks.iter().any(|lock| lock.object.offset == object.offset);
        let mut others = segment.objects();
        others.retain(|object| !is_robust(object));
        let seen = |lock: LockInfo| {
            let same =
                before.and_then(|before| before.find(&lock)).filter(|seen| is_same_tenure(&seen.lock, &lock));
            Seen { owned_since: same.map_or(at, |seen| seen.owned_since), lock }
        };
        Ok(Self {
            at,
            locks: locks.into_iter().map(seen).collect(),
            others,
            alive,
            dead: participants.len() - alive,
            is_named: segment.is_still_named()?,
        })
    }

    /// For tests: as if it had been taken after `interval`, with other locks.
    #[cfg(test)]
    pub(super) fn amend(&mut self, interval: Duration, change: impl Fn(&mut LockInfo)) {
        self.at = self.locks.first().map_or(self.at, |seen| seen.owned_since) + interval;
        self.locks.iter_mut().for_each(|seen| change(&mut seen.lock));
    }

    fn find(&self, lock: &LockInfo) -> Option<&Seen> {
        self.locks.iter().find(|seen| seen.lock.object.offset == lock.object.offset)
    }

    /// What happened since `before`.
    pub(super) fn report(&self, before: Option<&Self>) -> Report {
        let interval = before.map(|before| self.at.saturating_duration_since(before.at));
        let row = |seen: &Seen| {
            let watched = Some(self.at.saturating_duration_since(seen.owned_since));
            let watched = watched.filter(|watched| is_held(&seen.lock) && !watched.is_zero());
            let old = before.and_then(|before| before.find(&seen.lock));
            let rates = old.zip(interval).map(|(old, interval)| Rates::of(&old.lock, &seen.lock, interval));
            Row { held: seen.lock.held_for.max(watched), rates, lock: seen.lock.clone() }
        };
        Report {
            locks: self.locks.iter().map(row).collect(),
            others: self.others.clone(),
            alive: self.alive,
            dead: self.dead,
            is_named: self.is_named,
            interval,
        }
    }
}

fn is_held(lock: &LockInfo) -> bool {
    matches!(lock.ownership, Ok(Ownership::Held(..)))
}

/// Whether nobody else has had the lock in between.
fn is_same_tenure(old: &LockInfo, new: &LockInfo) -> bool {
    is_held(new) && old.words.owner == new.words.owner && old.stats.acquisitions == new.stats.acquisitions
}

/// What has been waited for the lock until now, in seconds: by those who got it, and by those who still wait.
fn waited_s(lock: &LockInfo) -> f64 {
    let present: f64 =
        lock.waiters.iter().filter_map(|waiter| waiter.waiting_for).map(|time| time.as_secs_f64()).sum();
    present + Duration::from_nanos(lock.stats.waited_ns).as_secs_f64()
}

impl Rates {
    fn of(old: &LockInfo, new: &LockInfo, interval: Duration) -> Self {
        let seconds = interval.as_secs_f64().max(1e-9);
        // Who writes garbage over the statistics makes them run backwards.
        let since = |old: u64, new: u64| new.saturating_sub(old);
        let acquired = since(old.stats.acquisitions, new.stats.acquisitions);
        let contended = since(old.stats.contended, new.stats.contended);
        let waited_ns = since(old.stats.waited_ns, new.stats.waited_ns);
        Self {
            acquired_per_s: acquired as f64 / seconds,
            contended_per_s: contended as f64 / seconds,
            contended_percent: percent(contended as f64, acquired as f64),
            // Less than nothing where somebody has given up.
            waiting: ((waited_s(new) - waited_s(old)) / seconds).max(0.0),
            mean_wait: waited_ns.checked_div(contended).map(Duration::from_nanos),
        }
    }
}

/// At most 100, although the two are not read in one moment.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (100.0 * part / whole).min(100.0))
}

impl Row {
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        self.lock.waiters.iter().filter_map(|waiter| waiter.waiting_for).max()
    }
}

impl Report {
    pub(super) fn held(&self) -> usize {
        self.locks.iter().filter(|row| is_held(&row.lock)).count()
    }

    pub(super) fn waiters(&self) -> usize {
        self.locks.iter().map(|row| row.lock.waiters.len()).sum()
    }

    /// Of all robust locks together; without a mean wait.
    pub(super) fn total(&self) -> Option<Rates> {
        self.interval?;
        let sum =
            |rate: fn(&Rates) -> f64| self.locks.iter().filter_map(|row| row.rates.as_ref().map(rate)).sum();
        let (acquired_per_s, contended_per_s) =
            (sum(|rates| rates.acquired_per_s), sum(|rates| rates.contended_per_s));
        Some(Rates {
            acquired_per_s,
            contended_per_s,
            contended_percent: percent(contended_per_s, acquired_per_s),
            waiting: sum(|rates| rates.waiting),
            mean_wait: None,
        })
    }
}
