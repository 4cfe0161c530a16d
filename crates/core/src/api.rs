//! The locks as [`lock_api`] sees them, so that they can stand in for any other raw mutex.

use core::fmt;
use core::marker::PhantomData;

use crate::error::Corrupted;
use crate::hooks::{Hooks, NoHooks, acquire_hooked, release_hooked, try_acquire_hooked};
use crate::raw::RawLock;

/// A context or hooks that need no data of their own: thread-local or static state stands behind them.
pub trait ConstContext {
    /// The value.
    const CONTEXT: Self;
}

impl ConstContext for NoHooks {
    const CONTEXT: Self = Self;
}

/// A [`RawLock`] that finds its context by itself: a [`lock_api::RawMutex`].
///
/// # Panics
/// Locking and unlocking panic on [`Corrupted`]: `lock_api` has no way to return an error. In memory
/// that only this program writes it cannot happen.
pub struct Api<L, C, H = NoHooks> {
    lock: L,
    context: PhantomData<fn() -> (C, H)>,
}

impl<L: fmt::Debug, C, H> fmt::Debug for Api<L, C, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Api").field(&self.lock).finish()
    }
}

impl<L, C, H> Api<L, C, H> {
    /// The lock underneath, to look at its word.
    pub const fn raw(&self) -> &L {
        &self.lock
    }
}

#[cold]
#[track_caller]
fn corrupted(error: Corrupted) -> ! {
    panic!("{error}")
}

macro_rules! raw_mutex {
    ($($lock:ident),*) => {$(
        // SAFETY: RawLock excludes; GuardNoSend keeps the release on the CPU that acquired.
        unsafe impl<C, H> lock_api::RawMutex for Api<crate::$lock, C, H>
        where
            C: ConstContext,
            H: ConstContext + Hooks,
            crate::$lock: RawLock<C>,
        {
            #[allow(clippy::declare_interior_mutable_const, reason = "how lock_api names a new lock")]
            const INIT: Self = Self { lock: crate::$lock::new(), context: PhantomData };
            type Guard = lock_api::GuardNoSend;

            #[inline]
            #[track_caller]
            fn lock(&self) -> Self::Guard {
                if let Err(error) = acquire_hooked(&self.lock, &C::CONTEXT, &H::CONTEXT) {
                    corrupted(error);
                }
                lock_api::GuardNoSend::new()
            }

            #[inline]
            #[track_caller]
            fn try_lock(&self) -> Option<Self::Guard> {
                try_acquire_hooked(&self.lock, &C::CONTEXT, &H::CONTEXT).then(lock_api::GuardNoSend::new)
            }

            #[inline]
            #[track_caller]
            unsafe fn unlock(&self, _guard: Self::Guard) {
                // SAFETY: lock_api's contract is that the caller owns the lock.
                if let Err(error) = unsafe { release_hooked(&self.lock, &C::CONTEXT, &H::CONTEXT) } {
                    corrupted(error);
                }
            }

            #[inline]
            fn is_locked(&self) -> bool {
                crate::LockType::is_locked(&self.lock)
            }
        }
    )*};
}

raw_mutex!(RawTas, RawTicket, RawMcs, RawQSpin, RawPvQSpin);
