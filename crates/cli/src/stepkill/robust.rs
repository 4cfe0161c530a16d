//! The robust locks of `crosslock`, as one thread uses them.

use std::time::Duration;

use anyhow::bail;
use crosslock::{Error, Guard, LockError, Mutex, RwLock, Segment, WriteGuard};
use crosslock_core::primitive::AtomicU64;

use super::lock::{CrashLock, NAME, Pair, Section};

/// The mutex.
pub(super) struct Robust(Mutex<Pair>);

impl CrashLock for Robust {
    type Guard<'a> = RobustGuard<'a>;

    fn create(segment: &Segment, name: &str) -> anyhow::Result<()> {
        segment.mutex::<Pair>(name, [0; 2])?;
        Ok(())
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.register()?;
        Ok(Self(segment.open_mutex(NAME)?))
    }

    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<RobustGuard<'_>>> {
        let locked = match patience {
            None => self.0.lock().map(Some),
            Some(patience) => self.0.lock_timeout(patience),
        };
        match locked {
            Ok(guard) => Ok(guard.map(|guard| RobustGuard { guard, owner_died: false })),
            Err(LockError::OwnerDied(suspect)) => {
                Ok(Some(RobustGuard { guard: suspect.into_guard(), owner_died: true }))
            }
            Err(LockError::Poisoned(_)) => bail!("the lock is poisoned, and nobody has panicked"),
            Err(LockError::Failed(error)) => Err(error.into()),
        }
    }
}

/// The right to the pair that a [`Robust`] lock guards.
pub(super) struct RobustGuard<'a> {
    guard: Guard<'a, Pair>,
    owner_died: bool,
}

impl Section for RobustGuard<'_> {
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

/// The reader-writer lock.
pub(super) struct RobustRw(RwLock<Pair>);

impl CrashLock for RobustRw {
    type Guard<'a> = RobustRwGuard<'a>;

    fn create(segment: &Segment, name: &str) -> anyhow::Result<()> {
        segment.rwlock::<Pair>(name, [0; 2])?;
        Ok(())
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.register()?;
        Ok(Self(segment.open_rwlock(NAME)?))
    }

    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<RobustRwGuard<'_>>> {
        let locked = match patience {
            None => self.0.write().map(Some),
            Some(patience) => self.0.write_timeout(patience),
        };
        match locked {
            Ok(guard) => Ok(guard.map(|guard| RobustRwGuard { guard, owner_died: false })),
            Err(LockError::OwnerDied(suspect)) => {
                Ok(Some(RobustRwGuard { guard: suspect.into_guard(), owner_died: true }))
            }
            Err(LockError::Poisoned(_)) => bail!("the lock is poisoned, and nobody has panicked"),
            Err(LockError::Failed(error)) => Err(error.into()),
        }
    }

    fn read(&self, inside: impl FnOnce(&[AtomicU64])) -> anyhow::Result<()> {
        let guard = self.0.read().map_err(Error::from)?;
        inside(guard.words());
        Ok(())
    }
}

/// The right to change the pair that a [`RobustRw`] lock guards.
pub(super) struct RobustRwGuard<'a> {
    guard: WriteGuard<'a, Pair>,
    owner_died: bool,
}

impl Section for RobustRwGuard<'_> {
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
