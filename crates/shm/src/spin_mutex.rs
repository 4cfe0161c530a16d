//! A spin lock and its data in a segment, for threads and processes alike.
//!
//! ```text
//!   object    0   the lock, on a cache line of its own
//!            64   the data, in whole 64-bit words
//! ```

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::sync::OnceLock;

use crosslock_core::{
    Corrupted, Hooks, LockType, NoHooks, RawLock, RawPvQSpin, acquire_hooked, release_hooked,
    try_acquire_hooked,
};

use crate::contents::Contents;
use crate::copy;
use crate::description::generation;
use crate::directory::{Kind, MAX_KIND_LEN, ObjectType};
use crate::error::{Error, Result};
use crate::header::LINE;
use crate::plain::Plain;
use crate::segment::{Segment, SegmentContext};

/// Where the data begins.
const DATA_OFFSET: usize = LINE;

/// Of the object.
const ALIGN: u32 = 64;
const _: () = assert!(ALIGN as usize == LINE);

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
    segment: Segment,
    lock: NonNull<L>,
    contents: Contents<T>,
    hooks: H,
    /// What a release found that could tell nobody; other handles on the same mutex do not know of it.
    corrupted: OnceLock<Corrupted>,
}

// SAFETY: the words behind the pointers live as long as `segment`; the lock is `Sync` by `LockType`, and
// the data is atomic words.
unsafe impl<T, L: LockType, H: Send> Send for SpinMutex<T, L, H> {}
// SAFETY: as above.
unsafe impl<T, L: LockType, H: Sync> Sync for SpinMutex<T, L, H> {}

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
        let segment = self.context()?;
        let offset = segment.find_or_create(name, &SpinMutex::<T, L>::object_type(), |offset| {
            // The lock is free as it is, all zero.
            Contents::at(segment.mapping(), offset + DATA_OFFSET).set(initial);
        })?;
        Ok(SpinMutex::at(self, offset))
    }

    /// The spin mutex `name`, which exists.
    ///
    /// # Errors
    /// [`Error::NoSuchObject`]; else as [`Segment::spin_mutex`].
    pub fn open_spin_mutex<T: Plain, L: RawLock<SegmentContext>>(
        &self,
        name: &str,
    ) -> Result<SpinMutex<T, L>> {
        let wanted = SpinMutex::<T, L>::object_type();
        let offset = self.context()?.find(name, &wanted)?;
        let offset = offset.ok_or(Error::NoSuchObject { name: name.into(), kind: wanted.kind })?;
        Ok(SpinMutex::at(self, offset))
    }
}

impl<T: Plain, L: LockType> SpinMutex<T, L> {
    fn object_type() -> ObjectType {
        const {
            assert!(size_of::<L>() <= LINE && align_of::<L>() <= LINE, "the lock is larger than a line");
            assert!(align_of::<T>() <= LINE, "the data is aligned to more than a line");
            assert!(L::NAME.len() <= MAX_KIND_LEN, "the name of the lock is too long");
        }
        ObjectType {
            kind: Kind::new(L::NAME),
            fingerprint: T::FINGERPRINT,
            size: (DATA_OFFSET + copy::words::<T>() * size_of::<u64>()) as u64,
            align: ALIGN,
        }
    }

    /// `offset` is that of a checked object of [`SpinMutex::object_type`].
    fn at(segment: &Segment, offset: usize) -> Self {
        let mapping = segment.inner().mapping();
        Self {
            segment: segment.clone(),
            lock: mapping.bytes(offset, size_of::<L>()).cast(),
            contents: Contents::at(mapping, offset + DATA_OFFSET),
            hooks: NoHooks,
            corrupted: OnceLock::new(),
        }
    }
}

impl<T, L: LockType, H> SpinMutex<T, L, H> {
    /// The same mutex, telling `hooks` of every operation from now on.
    #[must_use]
    pub fn with_hooks<H2>(self, hooks: H2) -> SpinMutex<T, L, H2> {
        let Self { segment, lock, contents, corrupted, .. } = self;
        SpinMutex { segment, lock, contents, hooks, corrupted }
    }

    /// The lock without the data, to look at its word.
    #[inline]
    pub fn raw(&self) -> &L {
        // SAFETY: checked to be inside the segment and aligned, and mapped as long as `segment`; `LockType`
        // is atomics through and through, valid for all bytes.
        unsafe { self.lock.as_ref() }
    }

    /// The segment that it lies in.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Whether somebody holds the lock; old news when it arrives.
    pub fn is_locked(&self) -> bool {
        self.raw().is_locked()
    }

    /// The data, whether or not the lock is held: for those who look on.
    pub fn contents(&self) -> &Contents<T> {
        &self.contents
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
        match acquire_hooked(self.raw(), self.segment.inner(), &self.hooks) {
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
        let taken = try_acquire_hooked(self.raw(), self.segment.inner(), &self.hooks);
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
            contents: self.contents.share(),
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
        let SpinMutex { segment, hooks, .. } = self.mutex;
        // SAFETY: a guard is made by a successful acquire of this thread only, and released once.
        let released = unsafe { release_hooked(self.mutex.raw(), segment.inner(), hooks) };
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
