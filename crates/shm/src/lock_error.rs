//! What locking gives where something has happened to the data.

use core::fmt;

use crosslock_core::{Condition, Refused};

use crate::error::Error;

/// Why a lock was not simply had.
///
/// Two of three mean that it *was* had, but that the last one inside did not come to the end of what it did. Whoever
/// passes them on with `?` gives the lock back as it was found: the next one is told the same.
pub enum LockError<G> {
    /// The owner died inside: its thread, process or machine has ended. After
    /// [`Suspect::into_guard`] the data must be [marked consistent](crate::Guard::mark_consistent), or nobody gets the lock
    /// any more.
    OwnerDied(Suspect<G>),
    /// An owner panicked inside, as the standard library's mutex tells it; goes on until somebody
    /// [marks the data consistent](crate::Guard::mark_consistent).
    Poisoned(Suspect<G>),
    /// The lock was not had.
    Failed(Error),
}

/// A guard of data that may be half changed. Dropped as it is, it gives the lock back as it was found.
pub struct Suspect<G>(G);

/// A guard that can be told that its user knows of the state of the data.
pub(crate) trait Accept {
    fn accept(&mut self);
}

impl<G> Suspect<G> {
    /// The guard, for one who knows that the data may be half changed, and will look after them.
    #[must_use = "dropped without marking the data consistent, the guard of a dead owner's lock gives the data up"]
    #[allow(private_bounds, reason = "all guards that there are can be accepted")]
    pub fn into_guard(self) -> G
    where
        G: Accept,
    {
        let mut guard = self.0;
        guard.accept();
        guard
    }

    /// The guard, to look before deciding.
    pub fn guard(&self) -> &G {
        &self.0
    }
}

impl<G> LockError<G> {
    /// A guard as the condition of the data demands.
    fn check(guard: G, condition: Condition) -> Result<G, Self> {
        match (condition.owner_died, condition.poisoned) {
            (false, false) => Ok(guard),
            (true, _) => Err(Self::OwnerDied(Suspect(guard))),
            (false, true) => Err(Self::Poisoned(Suspect(guard))),
        }
    }
}

/// What the user is told of an attempt; `guard` is for what was had.
#[inline]
pub(crate) fn answer<G>(
    got: Result<Condition, Refused>,
    guard: impl FnOnce(Condition) -> G,
) -> Result<G, LockError<G>> {
    match got {
        Ok(condition) => LockError::check(guard(condition), condition),
        Err(refused) => Err(LockError::Failed(refused.into())),
    }
}

/// The same of an attempt that did not wait.
#[inline]
pub(crate) fn answer_to_try<G>(
    got: Result<Option<Condition>, Refused>,
    guard: impl FnOnce(Condition) -> G,
) -> Result<Option<G>, LockError<G>> {
    got.transpose().map(|got| answer(got, guard)).transpose()
}

/// The same of an attempt that waited for some time only.
pub(crate) fn answer_in_time<G>(
    got: Result<Condition, Refused>,
    guard: impl FnOnce(Condition) -> G,
) -> Result<Option<G>, LockError<G>> {
    match got {
        Err(Refused::TimedOut) => Ok(None),
        got => answer(got, guard).map(Some),
    }
}

impl<G> From<Error> for LockError<G> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<G> From<LockError<G>> for Error {
    /// The lock, if it was had, is given back.
    fn from(error: LockError<G>) -> Self {
        match error {
            LockError::OwnerDied(_) => Self::OwnerDied,
            LockError::Poisoned(_) => Self::Poisoned,
            LockError::Failed(error) => error,
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotRecoverable => Self::NotRecoverable,
            Refused::Deadlock => Self::Deadlock,
            Refused::TooManyReads => Self::TooManyReads,
            Refused::Corrupted(found) => found.into(),
            // Who sets a time looks for its end.
            Refused::TimedOut | _ => Self::TimedOut,
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("OwnerDied(..)"),
            Self::Poisoned(_) => f.write_str("Poisoned(..)"),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<G> fmt::Debug for Suspect<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Suspect(..)")
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => Error::OwnerDied.fmt(f),
            Self::Poisoned(_) => Error::Poisoned.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<G> std::error::Error for LockError<G> {}
