//! A spin lock and its data in a segment, for threads and processes alike: a [`Guarded`] with any lock of the family.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use crosslock_core::{
    Corrupted, Hooks, LockType, NoHooks, RawLock, RawPvQSpin, acquire_hooked, release_hooked,
    try_acquire_hooked,
};

use crate::contents::Contents;
use crate::description::generation;
use crate::error::{Error, Result};
use crate::guarded::Guarded;
use crate::header::LINE;
use crate::plain::Plain;
use crate::segment::{Segment, SegmentContext};

/// A lock and the data that it guards, in a [`Segment`].
///
/// The lock is `L`, any of the family of spin locks in `crosslock-core`; all users of the object must name the
/// same. A holder that dies keeps the lock, one that waits for itself waits for ever. A panic inside a critical
/// section releases the lock and leaves the data as it was last set; there is no poisoning.
///
/// ```
/// use crosslock::crosslock_core::RawPvQSpin;
///
/// let segment = crosslock::Options::new().create_memfd("example")?;
/// let counter = segment.spin_mutex::<u64, RawPvQSpin>("counter", 0)?;
/// std::thread::scope(|scope| {
///     for _ in 0..2 {
///         scope.spawn(|| counter.lock().map(|mut n| n.update(|n| *n += 1)));
///     }
/// });
/// assert_eq!(counter.lock()?.get(), 2);
/// # Ok::<(), crosslock::Error>(())
/// ```
pub struct SpinMutex<T, L = RawPvQSpin, H = NoHooks> {
    guarded: Guarded<L, T>,
    hooks: H,
    /// What a release found that could tell nobody; other handles on the same mutex do not know of it.
    corrupted: OnceLock<Corrupted>,
}

impl Segment {
    /// The spin mutex `name`, created around `initial` if there is none, with any lock of the family.
    ///
    /// ```
    /// use crosslock::crosslock_core::RawTicket;
    ///
    /// let segment = crosslock::Options::new().create_memfd("example")?;
    /// let fair = segment.spin_mutex::<u64, RawTicket>("fair", 0)?;
    /// assert_eq!(fair.lock()?.get(), 0);
    /// # Ok::<(), crosslock::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the object exists and is another; [`Error::InvalidName`]: 1 to 47 bytes;
    /// [`Error::DirectoryFull`], [`Error::HeapFull`], [`Error::Damaged`], [`Error::ReadOnly`],
    /// [`Error::Busy`], [`Error::Io`].
    pub fn spin_mutex<T: Plain, L: RawLock<SegmentContext>>(
        &self,
        name: &str,
        initial: T,
    ) -> Result<SpinMutex<T, L>> {
        Guarded::create(self, name, initial).map(SpinMutex::of)
    }

    /// The spin mutex `name`, which exists.
    ///
    /// # Errors
    /// [`Error::NoSuchObject`]; else as [`Segment::spin_mutex`].
    pub fn open_spin_mutex<T: Plain, L: RawLock<SegmentContext>>(
        &self,
        name: &str,
    ) -> Result<SpinMutex<T, L>> {
        Guarded::open(self, name).map(SpinMutex::of)
    }
}

impl<T, L: LockType> SpinMutex<T, L> {
    fn of(guarded: Guarded<L, T>) -> Self {
        const {
            assert!(size_of::<L>() <= LINE, "the lock is larger than a line");
        }
        Self { guarded, hooks: NoHooks, corrupted: OnceLock::new() }
    }
}

impl<T, L: LockType, H> SpinMutex<T, L, H> {
    /// The same mutex, telling `hooks` of every operation from now on.
    #[must_use]
    pub fn with_hooks<H2>(self, hooks: H2) -> SpinMutex<T, L, H2> {
        let Self { guarded, corrupted, .. } = self;
        SpinMutex { guarded, hooks, corrupted }
    }

    /// The lock without the data, to look at its word.
    #[inline]
    pub fn raw(&self) -> &L {
        self.guarded.raw()
    }

    /// The segment that it lies in.
    pub fn segment(&self) -> &Segment {
        self.guarded.segment()
    }

    /// Whether somebody holds the lock; old news when it arrives.
    pub fn is_locked(&self) -> bool {
        self.raw().is_locked()
    }

    /// The data, whether or not the lock is held: for those who look on.
    pub fn contents(&self) -> &Contents<T> {
        self.guarded.contents()
    }
}

impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks> SpinMutex<T, L, H> {
    /// Waits until the lock is free, and takes it.
    ///
    /// A thread that finds no participant slot ([`Error::TooManyParticipants`]) waits all the same, only
    /// worse. A thread that holds the lock already waits for ever.
    ///
    /// # Errors
    /// [`Error::Corrupted`] where a peer has written garbage over the lock or its queue; also where an
    /// earlier release found so.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Result<SpinGuard<'_, T, L, H>> {
        self.check()?;
        match acquire_hooked(self.raw(), self.guarded.cx(), &self.hooks) {
            Ok(()) => Ok(self.guard()),
            Err(found) => Err(self.remember(found)),
        }
    }

    /// Takes the lock if it is free now; never waits.
    ///
    /// # Errors
    /// As [`SpinMutex::lock`].
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Result<Option<SpinGuard<'_, T, L, H>>> {
        self.check()?;
        let taken = try_acquire_hooked(self.raw(), self.guarded.cx(), &self.hooks);
        Ok(taken.then(|| self.guard()))
    }

    #[inline]
    fn check(&self) -> Result<()> {
        self.corrupted.get().map_or(Ok(()), |&found| Err(found.into()))
    }

    /// A damaged lock stays so: who tried it once does not touch it again.
    #[cold]
    fn remember(&self, found: Corrupted) -> Error {
        // The first one tells enough.
        let _ = self.corrupted.set(found);
        found.into()
    }

    #[inline]
    fn guard(&self) -> SpinGuard<'_, T, L, H> {
        SpinGuard {
            contents: self.guarded.contents().share(),
            mutex: self,
            generation: generation(),
            not_send: PhantomData,
        }
    }
}

impl<T, L: fmt::Debug + LockType, H> fmt::Debug for SpinMutex<T, L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinMutex").field("lock", self.raw()).finish_non_exhaustive()
    }
}

/// The right to the data of a locked [`SpinMutex`]; releases the lock on drop.
///
/// What can be done with the data is said at [`Contents`]. The guard cannot be sent to another thread. After a fork the child's
/// copy of it is dead: the lock is the parent's. Access to the data of such a copy panics; dropping it does nothing.
///
/// ```compile_fail
/// fn send(_: impl Send) {}
/// let segment = crosslock::Options::new().create_memfd("example").unwrap();
/// type Lock = crosslock::crosslock_core::RawPvQSpin;
/// send(segment.spin_mutex::<u64, Lock>("n", 0).unwrap().lock().unwrap());
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct SpinGuard<'a, T: Plain, L: RawLock<SegmentContext> = RawPvQSpin, H: Hooks = NoHooks> {
    mutex: &'a SpinMutex<T, L, H>,
    contents: Contents<T>,
    generation: u32,
    not_send: PhantomData<*const ()>,
}

// SAFETY: sharing a guard shares the right to read; writing takes `&mut`.
unsafe impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks + Sync> Sync for SpinGuard<'_, T, L, H> {}

impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks> SpinGuard<'_, T, L, H> {
    /// Releases the lock, and tells if that went wrong; dropping the guard leaves that to the next
    /// [`SpinMutex::lock`].
    ///
    /// # Errors
    /// [`Error::Corrupted`] where a peer has written garbage over the lock or its queue.
    #[inline]
    #[track_caller]
    pub fn unlock(self) -> Result<()> {
        let guard = core::mem::ManuallyDrop::new(self);
        guard.check_generation();
        guard.release().map_err(Error::from)
    }

    /// Panics in the child of a fork: a mistake of this program, which no peer can provoke.
    #[inline]
    fn check_generation(&self) {
        assert!(self.generation == generation(), "this guard is the parent's; a forked child must lock anew");
    }

    #[inline]
    #[track_caller]
    fn release(&self) -> Result<(), Corrupted> {
        if self.generation != generation() {
            return Ok(());
        }
        let SpinMutex { guarded, hooks, .. } = self.mutex;
        // SAFETY: a guard is made by a successful acquire of this thread only, and released once.
        let released = unsafe { release_hooked(guarded.raw(), guarded.cx(), hooks) };
        released.inspect_err(|&found| {
            self.mutex.remember(found);
        })
    }
}

impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks> Deref for SpinGuard<'_, T, L, H> {
    type Target = Contents<T>;

    #[inline]
    fn deref(&self) -> &Contents<T> {
        self.check_generation();
        &self.contents
    }
}

impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks> DerefMut for SpinGuard<'_, T, L, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Contents<T> {
        self.check_generation();
        &mut self.contents
    }
}

impl<T: Plain, L: RawLock<SegmentContext>, H: Hooks> Drop for SpinGuard<'_, T, L, H> {
    #[inline]
    fn drop(&mut self) {
        // Remembered, and told by the next `lock`.
        let _ = self.release();
    }
}

impl<T: Plain + fmt::Debug, L: RawLock<SegmentContext>, H: Hooks> fmt::Debug for SpinGuard<'_, T, L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpinGuard").field(&self.get()).finish()
    }
}
