//! Test-and-test-and-set with exponential backoff: the simplest lock, unfair, at home where waiters may
//! be preempted at any moment.
//!
//! ```text
//!   word   0 = free, 1 = held
//!
//!            acquire: compare-exchange
//!      0  ------------------------------>  1
//!         <------------------------------
//!            release: store
//! ```
//! After T. E. Anderson, "The performance of spin lock alternatives for shared-memory multiprocessors",
//! IEEE TPDS 1(1), 1990.

use core::fmt;

use crate::context::Context;
use crate::error::Corrupted;
use crate::primitive::{AtomicU32, Ordering, const_new};
use crate::raw::{LockType, RawLock};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// Turns of the spin loop after which the backoff grows no more.
const MAX_BACKOFF: u32 = 64;

/// A test-and-test-and-set lock in one 32-bit word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct RawTas {
    word: AtomicU32,
}

impl RawTas {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self { word: AtomicU32::new(FREE) }
        }
    }

    #[inline]
    fn try_take(&self) -> bool {
        // Acquire: pairs with the Release in `release`.
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn spin<C: Context>(&self, cx: &C) {
        let mut backoff = 1;
        loop {
            while self.word.load(Ordering::Relaxed) != FREE {
                for _ in 0..backoff {
                    cx.relax();
                }
                backoff = MAX_BACKOFF.min(backoff * 2);
            }
            if self.try_take() {
                return;
            }
        }
    }
}

// SAFETY: one 32-bit atomic; 0 is free.
unsafe impl LockType for RawTas {
    const NAME: &'static str = "tas";

    fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match word {
            FREE => f.write_str("free"),
            HELD => f.write_str("held"),
            other => write!(f, "garbage {other:#010x}"),
        }
    }
}

// SAFETY: only one compare-exchange 0 -> 1 succeeds until the owner stores 0 with Release, which the next
// successful one reads with Acquire.
unsafe impl<C: Context> RawLock<C> for RawTas {
    #[inline]
    fn acquire(&self, cx: &C) -> Result<(), Corrupted> {
        if !self.try_take() {
            self.spin(cx);
        }
        Ok(())
    }

    #[inline]
    fn try_acquire(&self, _cx: &C) -> bool {
        self.try_take()
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) -> Result<(), Corrupted> {
        self.word.store(FREE, Ordering::Release);
        Ok(())
    }
}
