//! What torture needs of a lock: an arena behind it.

use anyhow::{Context as _, bail};
use crosslock::crosslock_core::{Condition, LockType, Ownership, RawLock, RawRobust};
use crosslock::{LockError, Mutex, Segment, SegmentContext, SpinMutex};

use super::arena::{self, Arena, Words};

/// A lock in a segment, and the arena that it guards.
pub(crate) trait Subject: Sized {
    /// What reports call it.
    const NAME: &'static str;

    /// The lock of the segment, made if there is none.
    fn create(segment: &Segment) -> anyhow::Result<Self>;

    /// The lock of the segment, which is there.
    fn open(segment: &Segment) -> anyhow::Result<Self>;

    /// For those who look on.
    fn arena(&self) -> Arena<'_>;

    /// Takes the lock, calls `repair` if the lock tells of a death, declares the data consistent if so, calls `visit`, and gives
    /// the lock up.
    fn enter<R>(
        &self,
        repair: impl FnOnce(Arena<'_>),
        visit: impl FnOnce(Arena<'_>) -> R,
    ) -> anyhow::Result<R>;

    /// Whether the lock is free, when all who used it are gone.
    fn is_free(&self) -> bool;
}

impl<L: RawLock<SegmentContext>> Subject for SpinMutex<Words, L> {
    const NAME: &'static str = L::NAME;

    fn create(segment: &Segment) -> anyhow::Result<Self> {
        Ok(segment.spin_mutex(arena::NAME, arena::new())?)
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.open_spin_mutex(arena::NAME).context(NOT_THERE)
    }

    fn arena(&self) -> Arena<'_> {
        Arena::new(self.contents().words())
    }

    fn enter<R>(
        &self,
        _repair: impl FnOnce(Arena<'_>),
        visit: impl FnOnce(Arena<'_>) -> R,
    ) -> anyhow::Result<R> {
        let guard = self.lock()?;
        let result = visit(Arena::new(guard.words()));
        guard.unlock()?;
        Ok(result)
    }

    fn is_free(&self) -> bool {
        !self.is_locked()
    }
}

pub(super) const NOT_THERE: &str = "nobody tortures that lock there";

impl Subject for Mutex<Words> {
    const NAME: &'static str = RawRobust::NAME;

    fn create(segment: &Segment) -> anyhow::Result<Self> {
        Ok(segment.mutex(arena::NAME, arena::new())?)
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.open_mutex(arena::NAME).context(NOT_THERE)
    }

    fn arena(&self) -> Arena<'_> {
        Arena::new(self.contents().words())
    }

    fn enter<R>(
        &self,
        repair: impl FnOnce(Arena<'_>),
        visit: impl FnOnce(Arena<'_>) -> R,
    ) -> anyhow::Result<R> {
        let guard = match self.lock() {
            Ok(guard) => guard,
            Err(LockError::OwnerDied(suspect)) => {
                let mut guard = suspect.into_guard();
                repair(Arena::new(guard.words()));
                guard.mark_consistent();
                guard
            }
            Err(LockError::Poisoned(_)) => bail!("the lock says that an owner panicked, and none did"),
            Err(LockError::Failed(error)) => return Err(error.into()),
        };
        let result = visit(Arena::new(guard.words()));
        guard.unlock()?;
        Ok(result)
    }

    fn is_free(&self) -> bool {
        self.raw().ownership() == Ok(Ownership::Free(Condition::CONSISTENT))
    }
}

/// The negative control of `--kill`: who gets the lock after a death goes on as if nothing had happened.
pub(crate) struct Forgetful(Mutex<Words>);

impl Subject for Forgetful {
    const NAME: &'static str = "forgetful";

    fn create(segment: &Segment) -> anyhow::Result<Self> {
        Subject::create(segment).map(Self)
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        Subject::open(segment).map(Self)
    }

    fn arena(&self) -> Arena<'_> {
        self.0.arena()
    }

    fn enter<R>(
        &self,
        _repair: impl FnOnce(Arena<'_>),
        visit: impl FnOnce(Arena<'_>) -> R,
    ) -> anyhow::Result<R> {
        self.0.enter(|_| (), visit)
    }

    fn is_free(&self) -> bool {
        self.0.is_free()
    }
}
