//! What is set once at boot, and read from then on.

use core::cell::UnsafeCell;

use crosslock_core::primitive::{AtomicU32, Ordering};

/// A place for a value that the first CPU sets before anybody reads it.
#[derive(Debug)]
pub(crate) struct Once<T> {
    is_set: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: written once, before `is_set` is 1, and only read after.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self { is_set: AtomicU32::new(0), value: UnsafeCell::new(None) }
    }

    /// # Panics
    /// It has been set.
    pub(crate) fn set(&self, value: T) {
        assert!(self.is_set.swap(2, Ordering::Acquire) == 0, "set twice");
        // SAFETY: only one caller ever finds 0, and nobody reads before the store below.
        unsafe { *self.value.get() = Some(value) };
        self.is_set.store(1, Ordering::Release);
    }

    /// # Panics
    /// It has not been set.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        assert!(self.is_set.load(Ordering::Acquire) == 1, "not set yet");
        // SAFETY: nobody writes any more, see `set`.
        unsafe { &*self.value.get() }.as_ref().expect("set")
    }
}
