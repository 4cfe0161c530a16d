//! The data under a lock, and all locks as one thing.

use std::time::{Duration, Instant};

use anyhow::bail;
use crosslock::crosslock_core::primitive::{AtomicU64, Ordering, spin_hint};
use crosslock::crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{LockError, Mutex, RwLock, Segment, SegmentContext, SpinMutex, Suspect};
use crosslock_lab::Field;

/// What somebody found in a section.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// The counters differed: somebody else was in a section, too.
    pub(crate) torn: bool,
    /// The last one was of another domain.
    pub(crate) handed_over: bool,
    /// The last owner has died.
    pub(crate) owner_died: bool,
}

/// A critical section of domain `me`: adds 1 to both.
fn turn(field: &[AtomicU64], me: u64, hold: Duration) -> Found {
    let load = |word: usize| field[word].load(Ordering::Relaxed);
    let store = |word: usize, value| field[word].store(value, Ordering::Relaxed);
    let (first, second) = (load(0), load(1));
    let handed_over = load(2) != me;
    store(0, first + 1);
    store(2, me);
    store(3, load(3) + u64::from(handed_over));
    let start = Instant::now();
    while start.elapsed() < hold {
        spin_hint();
    }
    store(1, second + 1);
    Found { torn: first != second, handed_over, owner_died: false }
}

/// Makes the counters equal again after a death in between.
fn mend(field: &[AtomicU64]) {
    let sum = field[0].load(Ordering::Relaxed).max(field[1].load(Ordering::Relaxed));
    field[0].store(sum, Ordering::Relaxed);
    field[1].store(sum, Ordering::Relaxed);
}

/// A lock with a field.
pub(crate) trait Court: Sync {
    /// One critical section, of domain `me`, `hold` long.
    fn section(&self, me: u64, hold: Duration) -> anyhow::Result<Found>;

    /// The data, to be looked at without the lock.
    fn words(&self) -> &[AtomicU64];

    /// Which domain's section was the last.
    fn last(&self) -> u64 {
        self.words()[2].load(Ordering::Relaxed)
    }

    /// How often the lock has gone from one domain to another.
    fn crossings(&self) -> u64 {
        self.words()[3].load(Ordering::Relaxed)
    }
}

impl<L: RawLock<SegmentContext> + Sync> Court for SpinMutex<Field, L> {
    fn words(&self) -> &[AtomicU64] {
        self.contents().words()
    }

    fn section(&self, me: u64, hold: Duration) -> anyhow::Result<Found> {
        let guard = self.lock()?;
        let found = turn(guard.words(), me, hold);
        guard.unlock()?;
        Ok(found)
    }
}

impl Court for Mutex<Field> {
    fn words(&self) -> &[AtomicU64] {
        self.contents().words()
    }

    fn section(&self, me: u64, hold: Duration) -> anyhow::Result<Found> {
        let (mut guard, owner_died) = match self.lock() {
            Ok(guard) => (guard, false),
            Err(LockError::OwnerDied(suspect)) => (suspect.into_guard(), true),
            Err(error) => bail!("{error}"),
        };
        if owner_died {
            mend(guard.words());
            guard.mark_consistent();
        }
        let found = turn(guard.words(), me, hold);
        guard.unlock()?;
        Ok(Found { owner_died, ..found })
    }
}

/// Every section reads first, and then writes.
impl Court for RwLock<Field> {
    fn words(&self) -> &[AtomicU64] {
        self.contents().words()
    }

    fn section(&self, me: u64, hold: Duration) -> anyhow::Result<Found> {
        let differs =
            |field: &[AtomicU64]| field[0].load(Ordering::Relaxed) != field[1].load(Ordering::Relaxed);
        let read = match self.read() {
            Ok(guard) => differs(guard.words()),
            // What the dead writer has left.
            Err(LockError::OwnerDied(suspect)) => {
                drop(Suspect::into_guard(suspect));
                false
            }
            Err(error) => bail!("{error}"),
        };
        let (mut guard, owner_died) = match self.write() {
            Ok(guard) => (guard, false),
            Err(LockError::OwnerDied(suspect)) => (suspect.into_guard(), true),
            Err(error) => bail!("{error}"),
        };
        if owner_died {
            mend(guard.words());
            guard.mark_consistent();
        }
        let found = turn(guard.words(), me, hold);
        guard.unlock()?;
        Ok(Found { torn: found.torn || read, owner_died, ..found })
    }
}

/// No lock at all: it must be caught.
struct Nothing(SpinMutex<Field, RawTas>);

impl Court for Nothing {
    fn words(&self) -> &[AtomicU64] {
        self.0.contents().words()
    }

    fn section(&self, me: u64, hold: Duration) -> anyhow::Result<Found> {
        Ok(turn(self.0.contents().words(), me, hold))
    }
}

/// The field `name` under the lock `lock`.
pub(crate) fn court(segment: &Segment, lock: &str, name: &str) -> anyhow::Result<Box<dyn Court>> {
    fn spin<L: RawLock<SegmentContext> + Sync + 'static>(
        segment: &Segment,
        name: &str,
    ) -> anyhow::Result<Box<dyn Court>> {
        Ok(Box::new(segment.spin_mutex::<Field, L>(name, [0; 4])?))
    }
    match lock {
        "robust" => Ok(Box::new(segment.mutex::<Field>(name, [0; 4])?)),
        "rwlock" => Ok(Box::new(segment.rwlock::<Field>(name, [0; 4])?)),
        "tas" => spin::<RawTas>(segment, name),
        "ticket" => spin::<RawTicket>(segment, name),
        "mcs" => spin::<RawMcs>(segment, name),
        "qspinlock" => spin::<RawQSpin>(segment, name),
        "pvqspinlock" => spin::<RawPvQSpin>(segment, name),
        "none" => Ok(Box::new(Nothing(segment.spin_mutex(name, [0; 4])?))),
        other => bail!("there is no lock {other}"),
    }
}
