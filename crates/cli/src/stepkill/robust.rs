//! The robust locks of `crosslock`, as one thread uses them.

use std::ops::Deref;
use std::time::Duration;

use anyhow::bail;
use crosslock::{Contents, Error, Guard, LockError, Mutex, RwLock, Segment, Suspect, WriteGuard};
use crosslock_core::primitive::AtomicU64;

use super::lock::{CrashLock, NAME, Pair, Section};

/// The mutex.
pub(super) struct Robust(Mutex<Pair>);

impl CrashLock for Robust {
    type Guard<'a> = Held<Guard<'a, Pair>>;

    fn create(segment: &Segment, name: &str) -> anyhow::Result<()> {
        segment.mutex::<Pair>(name, [0; 2])?;
        Ok(())
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.register()?;
        Ok(Self(segment.open_mutex(NAME)?))
    }

    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<Self::Guard<'_>>> {
        let locked = match patience {
            None => self.0.lock().map(Some),
            Some(patience) => self.0.lock_timeout(patience),
        };
        held(locked, Suspect::into_guard)
    }
}

/// The reader-writer lock.
pub(super) struct RobustRw(RwLock<Pair>);

impl CrashLock for RobustRw {
    type Guard<'a> = Held<WriteGuard<'a, Pair>>;

    fn create(segment: &Segment, name: &str) -> anyhow::Result<()> {
        segment.rwlock::<Pair>(name, [0; 2])?;
        Ok(())
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.register()?;
        Ok(Self(segment.open_rwlock(NAME)?))
    }

    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<Self::Guard<'_>>> {
        let locked = match patience {
            None => self.0.write().map(Some),
            Some(patience) => self.0.write_timeout(patience),
        };
        held(locked, Suspect::into_guard)
    }

    fn read(&self, inside: impl FnOnce(&[AtomicU64])) -> anyhow::Result<()> {
        let guard = self.0.read().map_err(Error::from)?;
        inside(guard.words());
        Ok(())
    }
}

/// A guard that can be told that the pair is repaired.
pub(super) trait Repairable: Deref<Target = Contents<Pair>> {
    fn mark_consistent(&mut self);
}

impl Repairable for Guard<'_, Pair> {
    fn mark_consistent(&mut self) {
        Guard::mark_consistent(self);
    }
}

impl Repairable for WriteGuard<'_, Pair> {
    fn mark_consistent(&mut self) {
        WriteGuard::mark_consistent(self);
    }
}

/// The right to change the pair.
pub(super) struct Held<G> {
    guard: G,
    owner_died: bool,
}

/// What came of an attempt to lock; a guard of data that may be half changed is accepted.
fn held<G>(
    locked: Result<Option<G>, LockError<G>>,
    accept: fn(Suspect<G>) -> G,
) -> anyhow::Result<Option<Held<G>>> {
    match locked {
        Ok(guard) => Ok(guard.map(|guard| Held { guard, owner_died: false })),
        Err(LockError::OwnerDied(suspect)) => Ok(Some(Held { guard: accept(suspect), owner_died: true })),
        Err(LockError::Poisoned(_)) => bail!("the lock is poisoned, and nobody has panicked"),
        Err(LockError::Failed(error)) => Err(error.into()),
    }
}

impl<G: Repairable> Section for Held<G> {
    fn owner_died(&self) -> bool {
        self.owner_died
    }

    fn words(&self) -> &[AtomicU64] {
        self.guard.words()
    }

    fn mark_consistent(&mut self) {
        self.guard.mark_consistent();
        self.owner_died = false;
    }
}
