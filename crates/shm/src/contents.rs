//! The data behind a guard.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crosslock_core::primitive::AtomicU64;

use crate::copy;
use crate::mapping::Mapping;
use crate::plain::Plain;

/// Data in a segment, as a guard gives access to them.
///
/// Values are copied in and out: a peer that writes without the lock cannot do worse than give this program wrong values.
pub struct Contents<T> {
    words: NonNull<AtomicU64>,
    holds: PhantomData<fn(T) -> T>,
}

// SAFETY: a pointer to atomic words, which any thread may access.
unsafe impl<T> Send for Contents<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Contents<T> {}

impl<T> Contents<T> {
    /// The data at `offset`, where a checked object has room for them. They must not outlive the mapping.
    pub(crate) fn at(mapping: &Mapping, offset: usize) -> Self {
        let words = mapping.slice::<AtomicU64>(offset, copy::words::<T>());
        Self { words: NonNull::from(words).cast(), holds: PhantomData }
    }

    pub(crate) fn share(&self) -> Self {
        Self { words: self.words, holds: PhantomData }
    }

    /// The data in place, as 64-bit words to be read and written with `Relaxed` order: for data that is too
    /// large to copy. A value that ends within a word is padded with zeros.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: a slice of this length at this address was made in `at`; the owner of this value keeps it mapped.
        unsafe { core::slice::from_raw_parts(self.words.as_ptr(), copy::words::<T>()) }
    }
}

impl<T: Plain> Contents<T> {
    /// A copy of the data.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        copy::load(self.words())
    }

    /// Overwrites the data.
    #[inline]
    pub fn set(&mut self, value: T) {
        copy::store(self.words(), &value);
    }

    /// Copies the data out, lets `change` change it, and copies it back; not if `change` panics.
    #[inline]
    pub fn update<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.get();
        let result = change(&mut value);
        self.set(value);
        result
    }

    /// The data in place.
    ///
    /// # Safety
    /// As long as the reference lives, nobody writes the data, in this process (by [`Contents::words`]) or in any
    /// other: all who map the segment keep the lock's protocol.
    #[inline]
    #[must_use]
    pub unsafe fn as_ref(&self) -> &T {
        // SAFETY: inside the mapping and aligned to a line; all bytes are a `T`; that nobody writes is the
        // caller's to ensure.
        unsafe { self.words.cast().as_ref() }
    }

    /// The data in place, to be changed.
    ///
    /// # Safety
    /// As [`Contents::as_ref`], and as long as the reference lives nobody reads the data either, other than by it.
    #[inline]
    #[must_use]
    pub unsafe fn as_mut(&mut self) -> &mut T {
        // SAFETY: inside the mapping and aligned to a line; all bytes are a `T`; that nobody else looks is
        // the caller's to ensure.
        unsafe { self.words.cast().as_mut() }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Contents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
