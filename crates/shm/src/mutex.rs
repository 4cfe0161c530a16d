//! A mutex in a segment that survives the death of whoever has it, or waits for it: a [`Guarded`] with the robust lock.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use crosslock_core::{Condition, Name, RawRobust};

use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::guarded::Guarded;
use crate::lock_error::{Accept, LockError, answer, answer_in_time, answer_to_try};
use crate::plain::Plain;
use crate::segment::Segment;
use crate::tenure::Tenure;

/// What locking gives.
pub type LockResult<'a, T, G = Guard<'a, T>> = core::result::Result<G, LockError<Guard<'a, T>>>;

/// Data in a [`Segment`] and the lock that guards them, for threads and processes alike.
///
/// Costs what a spin lock costs, sleeps when it must wait, and survives whoever dies: one that waits is forgotten, and
/// the lock of one that dies inside is given to the next, who is [told](LockError::OwnerDied). Deaths are proven by the kernel;
/// an owner that is merely slow, or stopped, keeps the lock.
///
/// The lock is [`RawRobust`]: not recursive, and not strictly fair: who runs may take it again before the one that
/// waits, but not for longer than about half a millisecond.
///
/// ```
/// use crosslock::LockError;
///
/// let segment = crosslock::Options::new().create_memfd("example")?;
/// let account = segment.mutex("account", [100u64, 0])?;
/// let mut balance = match account.lock() {
///     Ok(guard) => guard,
///     Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
///         // Somebody died or panicked in the middle of a transfer: make good what it left.
///         let mut guard = suspect.into_guard();
///         guard.update(|[a, b]| *b = 100 - *a);
///         guard.mark_consistent();
///         guard
///     }
///     Err(LockError::Failed(error)) => return Err(error),
/// };
/// balance.update(|[a, b]| (*a, *b) = (*a - 30, *b + 30));
/// assert_eq!(balance.get(), [70, 30]);
/// # drop(balance);
/// # Ok::<(), crosslock::Error>(())
/// ```
pub struct Mutex<T>(Guarded<RawRobust, T>);

impl Segment {
    /// The mutex `name`, created around `initial` if there is none.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the object exists and is another; [`Error::InvalidName`]: 1 to 47 bytes;
    /// [`Error::DirectoryFull`], [`Error::HeapFull`], [`Error::Damaged`], [`Error::ReadOnly`],
    /// [`Error::Busy`], [`Error::Io`].
    pub fn mutex<T: Plain>(&self, name: &str, initial: T) -> Result<Mutex<T>> {
        Guarded::create(self, name, initial).map(Mutex)
    }

    /// The mutex `name`, which exists.
    ///
    /// # Errors
    /// [`Error::NoSuchObject`]; else as [`Segment::mutex`].
    pub fn open_mutex<T: Plain>(&self, name: &str) -> Result<Mutex<T>> {
        Guarded::open(self, name).map(Mutex)
    }
}

impl<T: Plain> Mutex<T> {
    /// Waits until the lock is free or its owner dead, and takes it.
    ///
    /// The first time, the thread becomes a participant of the segment; see [`Segment::register`].
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], [`LockError::Poisoned`]; [`LockError::Failed`] with [`Error::Deadlock`],
    /// [`Error::NotRecoverable`], [`Error::Corrupted`], or as [`Segment::register`].
    #[inline]
    pub fn lock(&self) -> LockResult<'_, T> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer(self.raw().acquire(cx, me), |condition| self.guard(me, condition))
    }

    /// Takes the lock if it is free, or its owner dead; never waits. `None` where somebody has it, also this thread.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    #[inline]
    pub fn try_lock(&self) -> LockResult<'_, T, Option<Guard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer_to_try(self.raw().try_acquire(cx, me), |condition| self.guard(me, condition))
    }

    /// As [`Mutex::lock`], but waits at most for `timeout`, and then leaves the queue as if it had never been there.
    /// `None` where the lock was not to be had in time.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<'_, T, Option<Guard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        let got = self.raw().acquire_until(cx, me, cx.deadline_ns(timeout));
        answer_in_time(got, |condition| self.guard(me, condition))
    }

    #[inline]
    fn guard(&self, name: Name, condition: Condition) -> Guard<'_, T> {
        Guard { contents: self.0.contents().share(), mutex: self, tenure: Tenure::begin(name, condition) }
    }
}

impl<T> Mutex<T> {
    /// The lock without the data, to look at its words.
    #[inline]
    pub fn raw(&self) -> &RawRobust {
        self.0.raw()
    }

    /// The segment that it lies in.
    pub fn segment(&self) -> &Segment {
        self.0.segment()
    }

    /// The data, whether or not the lock is held: for those who look on.
    pub fn contents(&self) -> &Contents<T> {
        self.0.contents()
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("lock", self.raw()).finish_non_exhaustive()
    }
}

/// The right to the data of a locked [`Mutex`]; releases the lock on drop. What can be done with the data is said at
/// [`Contents`].
///
/// A panic that unwinds through a guard poisons the mutex. The guard cannot be sent to another thread. After a fork the
/// child's copy of it is dead: the lock is the parent's. Access to the data of such a copy panics; dropping it does nothing.
///
/// ```compile_fail
/// fn send(_: impl Send) {}
/// let segment = crosslock::Options::new().create_memfd("example").unwrap();
/// send(segment.mutex("n", 0u64).unwrap().lock().unwrap());
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    contents: Contents<T>,
    tenure: Tenure,
}

// SAFETY: sharing a guard shares the right to read; writing takes `&mut`.
unsafe impl<T> Sync for Guard<'_, T> {}

impl<T> Guard<'_, T> {
    /// Says that the data are as they should be, after a death or a panic.
    pub fn mark_consistent(&mut self) {
        self.tenure.check();
        // SAFETY: a guard is made by a successful acquire under this name.
        // If somebody has taken the lock away, the release tells.
        let _ = unsafe { self.mutex.raw().mark_consistent(self.tenure.name()) };
    }

    /// Releases the lock, and tells if that went wrong; dropping the guard keeps it to itself.
    ///
    /// # Errors
    /// [`Error::Corrupted`] where somebody has taken the lock away, or written garbage over it.
    #[inline]
    pub fn unlock(self) -> Result<(), Error> {
        let guard = core::mem::ManuallyDrop::new(self);
        guard.tenure.check();
        guard.release()
    }

    #[inline]
    fn release(&self) -> Result<()> {
        let (lock, cx, name) = (self.mutex.raw(), self.mutex.0.cx(), self.tenure.name());
        if !self.tenure.is_of_this_process() {
            return Ok(());
        }
        if self.tenure.is_special()
            && let Some(condition) = self.tenure.leaves(lock.ownership())
        {
            // SAFETY: a guard is made by a successful acquire of this thread only, and released once.
            return Ok(unsafe { lock.release_as(cx, name, condition) }?);
        }
        // SAFETY: as above.
        Ok(unsafe { lock.release(cx, name) }?)
    }
}

impl<T> Accept for Guard<'_, T> {
    fn accept(&mut self) {
        self.tenure.accept();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = Contents<T>;

    #[inline]
    fn deref(&self) -> &Contents<T> {
        self.tenure.check();
        &self.contents
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Contents<T> {
        self.tenure.check();
        &mut self.contents
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // A lock that was taken away has another owner by now, who has been told.
        let _ = self.release();
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.get()).finish()
    }
}
