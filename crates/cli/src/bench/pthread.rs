//! The locks of the C library, shared between processes as ours are.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;

use super::contestant::Bare;

/// All calls here fail only where they are misused.
#[inline]
fn check(status: c_int) {
    assert_eq!(status, 0, "a pthread lock is misused");
}

/// `pthread_spinlock_t`, process-shared.
pub(super) struct Spin(UnsafeCell<libc::pthread_spinlock_t>);

// SAFETY: made to be used by many threads.
unsafe impl Sync for Spin {}

// SAFETY: a lock, by POSIX, and process-shared.
unsafe impl<C> Bare<C> for Spin {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn settle(&self) {
        // SAFETY: nobody uses it yet, and it stays.
        check(unsafe { libc::pthread_spin_init(self.0.get(), libc::PTHREAD_PROCESS_SHARED) });
    }

    #[inline]
    fn acquire(&self, _cx: &C) {
        // SAFETY: initialised by `settle`.
        check(unsafe { libc::pthread_spin_lock(self.0.get()) });
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) {
        // SAFETY: the caller owns the lock.
        check(unsafe { libc::pthread_spin_unlock(self.0.get()) });
    }
}

/// `pthread_mutex_t`, process-shared. Never destroyed: on Linux it owns nothing.
pub(super) struct Mutex<const ROBUST: bool>(UnsafeCell<MaybeUninit<libc::pthread_mutex_t>>);

// SAFETY: made to be used by many threads.
unsafe impl<const ROBUST: bool> Sync for Mutex<ROBUST> {}

// SAFETY: a lock, by POSIX, and process-shared.
unsafe impl<C, const ROBUST: bool> Bare<C> for Mutex<ROBUST> {
    fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    fn settle(&self) {
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for the attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes) });
        // SAFETY: initialised above.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) });
        if ROBUST {
            // SAFETY: initialised above.
            check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) });
        }
        // SAFETY: nobody uses the mutex yet, and it stays.
        check(unsafe { libc::pthread_mutex_init(self.0.get().cast(), attributes) });
        // SAFETY: initialised above, and not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) });
    }

    #[inline]
    fn acquire(&self, _cx: &C) {
        // SAFETY: initialised by `settle`.
        check(unsafe { libc::pthread_mutex_lock(self.0.get().cast()) });
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) {
        // SAFETY: the caller owns the lock.
        check(unsafe { libc::pthread_mutex_unlock(self.0.get().cast()) });
    }
}
