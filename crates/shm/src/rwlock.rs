//! A reader-writer lock in a segment that survives the death of any reader or writer: a [`Guarded`] with its lock.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use crosslock_core::{Condition, Name, RawRobustRw};

use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::guarded::Guarded;
use crate::lock_error::{Accept, LockError, answer, answer_in_time, answer_to_try};
use crate::plain::Plain;
use crate::segment::Segment;
use crate::tenure::Tenure;

/// Data that many may read at once, or one may write, for threads and processes alike.
///
/// Survives whoever dies, as [`Mutex`](crate::Mutex) does: a reader that dies is not counted any more, and after a writer
/// that dies everyone is [told](LockError::OwnerDied) until a writer marks the data consistent. Readers
/// cost no atomic read-modify-write where the segment's releases are stores; a writer pays for them, some
/// microseconds. A thread reads under at most [`READS`](crosslock_core::READS) locks at once.
///
/// ```
/// let segment = crosslock::Options::new().create_memfd("example")?;
/// let limits = segment.rwlock("limits", [0u64, 100])?;
/// {
///     let (one, other) = (limits.read()?, limits.read()?);
///     assert_eq!(one.get(), other.get());
/// }
/// limits.write()?.update(|[low, _]| *low = 10);
/// assert_eq!(limits.read()?.get(), [10, 100]);
/// # Ok::<(), crosslock::Error>(())
/// ```
pub struct RwLock<T>(Guarded<RawRobustRw, T>);

impl Segment {
    /// The reader-writer lock `name`, created around `initial` if there is none.
    ///
    /// # Errors
    /// As [`Segment::mutex`].
    pub fn rwlock<T: Plain>(&self, name: &str, initial: T) -> Result<RwLock<T>> {
        Guarded::create(self, name, initial).map(RwLock)
    }

    /// The reader-writer lock `name`, which exists.
    ///
    /// # Errors
    /// [`Error::NoSuchObject`]; else as [`Segment::mutex`].
    pub fn open_rwlock<T: Plain>(&self, name: &str) -> Result<RwLock<T>> {
        Guarded::open(self, name).map(RwLock)
    }
}

impl<T: Plain> RwLock<T> {
    /// Waits until nobody writes, and lets others read meanwhile. A thread that reads already may read again.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], [`LockError::Poisoned`]: a writer did not come to its end, and no writer has marked the data
    /// consistent since. [`LockError::Failed`] with [`Error::Deadlock`] where this thread writes, [`Error::TooManyReads`],
    /// [`Error::NotRecoverable`], [`Error::Corrupted`], or as [`Segment::register`].
    #[inline]
    pub fn read(&self) -> Result<ReadGuard<'_, T>, LockError<ReadGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer(self.raw().read(cx, me, u64::MAX), |_| self.read_guard(me))
    }

    /// As [`RwLock::read`], without waiting. `None` where somebody writes or waits to write, or is just passing to read
    /// while one of these was there.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn try_read(&self) -> Result<Option<ReadGuard<'_, T>>, LockError<ReadGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer_to_try(self.raw().try_read(cx, me), |_| self.read_guard(me))
    }

    /// As [`RwLock::read`], waiting at most for `timeout`. `None` where the time was over.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn read_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<ReadGuard<'_, T>>, LockError<ReadGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        let got = self.raw().read(cx, me, cx.deadline_ns(timeout));
        answer_in_time(got, |_| self.read_guard(me))
    }

    /// Waits until nobody reads or writes.
    ///
    /// # Errors
    /// As [`RwLock::read`]; [`Error::Deadlock`] also where this thread reads.
    pub fn write(&self) -> Result<WriteGuard<'_, T>, LockError<WriteGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer(self.raw().write(cx, me, u64::MAX), |condition| self.write_guard(me, condition))
    }

    /// As [`RwLock::write`], without waiting. `None` where somebody reads or writes.
    ///
    /// # Errors
    /// As [`RwLock::write`].
    pub fn try_write(&self) -> Result<Option<WriteGuard<'_, T>>, LockError<WriteGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        answer_to_try(self.raw().try_write(cx, me), |condition| self.write_guard(me, condition))
    }

    /// As [`RwLock::write`], waiting at most for `timeout`. `None` where the time was over.
    ///
    /// # Errors
    /// As [`RwLock::write`].
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<WriteGuard<'_, T>>, LockError<WriteGuard<'_, T>>> {
        let cx = self.0.cx();
        let me = cx.me()?;
        let got = self.raw().write(cx, me, cx.deadline_ns(timeout));
        answer_in_time(got, |condition| self.write_guard(me, condition))
    }

    fn read_guard(&self, name: Name) -> ReadGuard<'_, T> {
        let tenure = Tenure::begin(name, Condition::CONSISTENT);
        ReadGuard { lock: self, contents: self.0.contents().share(), tenure }
    }

    fn write_guard(&self, name: Name, condition: Condition) -> WriteGuard<'_, T> {
        WriteGuard { contents: self.0.contents().share(), lock: self, tenure: Tenure::begin(name, condition) }
    }
}

impl<T> RwLock<T> {
    /// The lock without the data, to look at its words.
    #[inline]
    pub fn raw(&self) -> &RawRobustRw {
        self.0.raw()
    }

    /// The data, whether or not the lock is held: for those who look on.
    pub fn contents(&self) -> &Contents<T> {
        self.0.contents()
    }

    /// The segment that it lies in.
    pub fn segment(&self) -> &Segment {
        self.0.segment()
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("lock", self.raw()).finish_non_exhaustive()
    }
}

/// The right to read the data of a [`RwLock`], until it is dropped; as a [`Guard`](crate::Guard), but shared.
#[must_use = "reading ends when the guard is dropped"]
pub struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    contents: Contents<T>,
    tenure: Tenure,
}

// SAFETY: only reads.
unsafe impl<T> Sync for ReadGuard<'_, T> {}

impl<T> Accept for ReadGuard<'_, T> {
    /// A reader need not repair anything.
    fn accept(&mut self) {}
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = Contents<T>;

    #[inline]
    fn deref(&self) -> &Contents<T> {
        self.tenure.check();
        &self.contents
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.tenure.is_of_this_process() {
            // SAFETY: a guard is made by a successful read of this thread only, and ends it once.
            unsafe { self.lock.raw().end_read(self.lock.0.cx(), self.tenure.name()) };
        }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadGuard").field(&self.get()).finish()
    }
}

/// The right to change the data of a [`RwLock`], until it is dropped; as a [`Guard`](crate::Guard).
#[must_use = "writing ends when the guard is dropped"]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    contents: Contents<T>,
    tenure: Tenure,
}

// SAFETY: sharing a guard shares the right to read; writing takes `&mut`.
unsafe impl<T> Sync for WriteGuard<'_, T> {}

impl<T> WriteGuard<'_, T> {
    /// Says that the data are as they should be, after a death or a panic.
    pub fn mark_consistent(&mut self) {
        self.tenure.check();
        // SAFETY: a guard is made by a successful write under this name.
        // If somebody has taken the lock away, the release tells.
        let _ = unsafe { self.lock.raw().mark_consistent(self.tenure.name()) };
    }

    /// Stops writing, and tells if that went wrong; dropping the guard keeps it to itself.
    ///
    /// # Errors
    /// [`Error::Corrupted`] where somebody has taken the lock away, or written garbage over it.
    pub fn unlock(self) -> Result<(), Error> {
        let guard = core::mem::ManuallyDrop::new(self);
        guard.tenure.check();
        guard.release()
    }

    fn release(&self) -> Result<()> {
        let (lock, cx, name) = (self.lock.raw(), self.lock.0.cx(), self.tenure.name());
        if !self.tenure.is_of_this_process() {
            return Ok(());
        }
        if self.tenure.is_special()
            && let Some(condition) = self.tenure.leaves(lock.gate().ownership())
        {
            // SAFETY: a guard is made by a successful write of this thread only, and ends it once.
            return Ok(unsafe { lock.end_write_as(cx, name, condition) }?);
        }
        // SAFETY: as above.
        Ok(unsafe { lock.end_write(cx, name) }?)
    }
}

impl<T> Accept for WriteGuard<'_, T> {
    fn accept(&mut self) {
        self.tenure.accept();
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = Contents<T>;

    #[inline]
    fn deref(&self) -> &Contents<T> {
        self.tenure.check();
        &self.contents
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Contents<T> {
        self.tenure.check();
        &mut self.contents
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // A lock that was taken away has another owner by now, who has been told.
        let _ = self.release();
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WriteGuard").field(&self.get()).finish()
    }
}
