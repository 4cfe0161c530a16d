//! A mutex in a segment that survives the death of whoever has it, or waits for it.
//!
//! ```text
//!   object    0   the lock: crosslock-core's RawRobust, on a cache line of its own
//!            64   the data, in whole 64-bit words
//! ```

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

use crosslock_core::{Condition, LockType, Name, RawRobust, Refused, RobustOps};

use crate::contents::Contents;
use crate::copy;
use crate::directory::{Kind, ObjectType};
use crate::error::{Error, Result};
use crate::header::LINE;
use crate::lock_error::{Accept, LockError};
use crate::plain::Plain;
use crate::segment::Segment;
use crate::tenure::Tenure;

/// Where the data begins.
const DATA_OFFSET: usize = LINE;

/// Of the object.
const ALIGN: u32 = 64;
const _: () = assert!(ALIGN as usize == LINE && size_of::<RawRobust>() <= LINE);

pub(crate) const KIND: &str = RawRobust::NAME;

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
pub struct Mutex<T> {
    segment: Segment,
    lock: NonNull<RawRobust>,
    contents: Contents<T>,
}

// SAFETY: the words behind the pointers live as long as `segment`, and are atomics.
unsafe impl<T> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mutex<T> {}

impl Segment {
    /// The mutex `name`, created around `initial` if there is none.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the object exists and is another; [`Error::InvalidName`]: 1 to 47 bytes;
    /// [`Error::DirectoryFull`], [`Error::HeapFull`], [`Error::Damaged`], [`Error::ReadOnly`],
    /// [`Error::Busy`], [`Error::Io`].
    pub fn mutex<T: Plain>(&self, name: &str, initial: T) -> Result<Mutex<T>> {
        let segment = self.context()?;
        let offset = segment.find_or_create(name, &Mutex::<T>::object_type(), |offset| {
            // The lock is free as it is, all zero.
            Contents::at(segment.mapping(), offset + DATA_OFFSET).set(initial);
        })?;
        Ok(Mutex::at(self, offset))
    }

    /// The mutex `name`, which exists.
    ///
    /// # Errors
    /// [`Error::NoSuchObject`]; else as [`Segment::mutex`].
    pub fn open_mutex<T: Plain>(&self, name: &str) -> Result<Mutex<T>> {
        let wanted = Mutex::<T>::object_type();
        let offset = self.context()?.find(name, &wanted)?;
        let offset = offset.ok_or(Error::NoSuchObject { name: name.into(), kind: wanted.kind })?;
        Ok(Mutex::at(self, offset))
    }
}

impl<T: Plain> Mutex<T> {
    fn object_type() -> ObjectType {
        const {
            assert!(align_of::<T>() <= LINE, "the data is aligned to more than a line");
        }
        ObjectType {
            kind: Kind::new(KIND),
            fingerprint: T::FINGERPRINT,
            size: (DATA_OFFSET + copy::words::<T>() * size_of::<u64>()) as u64,
            align: ALIGN,
        }
    }

    /// `offset` is that of a checked object of [`Mutex::object_type`].
    fn at(segment: &Segment, offset: usize) -> Self {
        let mapping = segment.inner().mapping();
        Self {
            segment: segment.clone(),
            lock: mapping.bytes(offset, size_of::<RawRobust>()).cast(),
            contents: Contents::at(mapping, offset + DATA_OFFSET),
        }
    }

    /// Waits until the lock is free or its owner dead, and takes it.
    ///
    /// The first time, the thread becomes a participant of the segment; see [`Segment::register`].
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], [`LockError::Poisoned`]; [`LockError::Failed`] with [`Error::Deadlock`],
    /// [`Error::NotRecoverable`], [`Error::Corrupted`], or as [`Segment::register`].
    #[inline]
    pub fn lock(&self) -> LockResult<'_, T> {
        let cx = self.segment.inner();
        let me = cx.me()?;
        match self.raw().acquire(cx, me) {
            Ok(condition) => LockError::check(self.guard(me, condition), condition),
            Err(refused) => Err(LockError::Failed(refused.into())),
        }
    }

    /// Takes the lock if it is free, or its owner dead; never waits. `None` where somebody has it, also this thread.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    #[inline]
    pub fn try_lock(&self) -> LockResult<'_, T, Option<Guard<'_, T>>> {
        let cx = self.segment.inner();
        let me = cx.me()?;
        match self.raw().try_acquire(cx, me) {
            Ok(Some(condition)) => LockError::check(self.guard(me, condition), condition).map(Some),
            Ok(None) => Ok(None),
            Err(refused) => Err(LockError::Failed(refused.into())),
        }
    }

    /// As [`Mutex::lock`], but waits at most for `timeout`, and then leaves the queue as if it had never been there.
    /// `None` where the lock was not to be had in time.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<'_, T, Option<Guard<'_, T>>> {
        let cx = self.segment.inner();
        let me = cx.me()?;
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        match self.raw().acquire_until(cx, me, cx.now_ns().saturating_add(timeout)) {
            Ok(condition) => LockError::check(self.guard(me, condition), condition).map(Some),
            Err(Refused::TimedOut) => Ok(None),
            Err(refused) => Err(LockError::Failed(refused.into())),
        }
    }

    #[inline]
    fn guard(&self, name: Name, condition: Condition) -> Guard<'_, T> {
        Guard { contents: self.contents.share(), mutex: self, tenure: Tenure::begin(name, condition) }
    }
}

impl<T> Mutex<T> {
    /// The lock without the data, to look at its words.
    #[inline]
    pub fn raw(&self) -> &RawRobust {
        // SAFETY: checked to be inside the segment and aligned, and mapped as long as `segment`; it is atomics
        // through and through, valid for all bytes.
        unsafe { self.lock.as_ref() }
    }

    /// The segment that it lies in.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The data, whether or not the lock is held: for those who look on.
    pub fn contents(&self) -> &Contents<T> {
        &self.contents
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
    pub fn unlock(self) -> Result<()> {
        let guard = core::mem::ManuallyDrop::new(self);
        guard.tenure.check();
        guard.release()
    }

    #[inline]
    fn release(&self) -> Result<()> {
        let (lock, cx, name) = (self.mutex.raw(), self.mutex.segment.inner(), self.tenure.name());
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
