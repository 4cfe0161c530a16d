//! The ticket lock, as Linux had it up to 4.1: first come, first served, on one word that all spin on.
//!
//! ```text
//!   word   31            16 15             0
//!         +----------------+----------------+
//!         |      tail      |      head      |     head == tail: free
//!         +----------------+----------------+
//!
//!   acquire   my = tail++  (one fetch_add on the word; the carry out of bit 31 is lost)
//!             wait until head == my
//!   release   head++       (only the owner writes head, so it can tell the wrap before it happens)
//! ```
//! Up to 65 535 waiters. After D. P. Reed and R. K. Kanodia, "Synchronization with eventcounts and
//! sequencers", CACM 22(2), 1979, and arch/x86/include/asm/spinlock.h of Linux 4.1.

use core::fmt;

use crate::context::Context;
use crate::error::Corrupted;
use crate::primitive::{AtomicU32, Ordering, const_new};
use crate::raw::{LockType, RawLock};

const TAIL_SHIFT: u32 = 16;
const TAIL_ONE: u32 = 1 << TAIL_SHIFT;
const HEAD_MASK: u32 = TAIL_ONE - 1;

/// A ticket lock in one 32-bit word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct RawTicket {
    word: AtomicU32,
}

const fn head(word: u32) -> u32 {
    word & HEAD_MASK
}

const fn tail(word: u32) -> u32 {
    word >> TAIL_SHIFT
}

impl RawTicket {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self { word: AtomicU32::new(0) }
        }
    }

    #[cold]
    fn wait_for<C: Context>(&self, cx: &C, my: u32) {
        // Acquire: pairs with the Release in `release`, whose value this head is, through a release
        // sequence of the other lockers' fetch_adds.
        while head(self.word.load(Ordering::Acquire)) != my {
            cx.relax();
        }
    }
}

// SAFETY: one 32-bit atomic; 0 is free.
unsafe impl LockType for RawTicket {
    const NAME: &'static str = "ticket";

    fn is_locked(&self) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        head(seen) != tail(seen)
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (tail(word).wrapping_sub(head(word))) & HEAD_MASK {
            0 => write!(f, "free (next ticket {})", tail(word)),
            tickets => write!(f, "held by ticket {}, {} waiting", head(word), tickets - 1),
        }
    }
}

// SAFETY: a ticket is drawn by one fetch_add, so no two owners have the same; `head` names one ticket and
// is moved on by its owner alone, with Release, which the next one reads with Acquire.
unsafe impl<C: Context> RawLock<C> for RawTicket {
    #[inline]
    fn acquire(&self, cx: &C) -> Result<(), Corrupted> {
        // Acquire: where the ticket is due at once, this is the read that pairs with `release`.
        let seen = self.word.fetch_add(TAIL_ONE, Ordering::Acquire);
        if head(seen) != tail(seen) {
            self.wait_for(cx, tail(seen));
        }
        Ok(())
    }

    #[inline]
    fn try_acquire(&self, _cx: &C) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        head(seen) == tail(seen)
            && self
                .word
                .compare_exchange(seen, seen.wrapping_add(TAIL_ONE), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) -> Result<(), Corrupted> {
        // Only the owner moves the head, so this load is current in its half.
        let at_wrap = head(self.word.load(Ordering::Relaxed)) == HEAD_MASK;
        let next = if at_wrap { HEAD_MASK.wrapping_neg() } else { 1 };
        self.word.fetch_add(next, Ordering::Release);
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::testing::Cpu;

    #[test]
    fn both_halves_wrap_without_touching_each_other() {
        let lock = RawTicket { word: AtomicU32::new(0xfffe_fffe) };
        let cx = Cpu::default();
        for turn in 0..4u32 {
            lock.acquire(&cx).unwrap();
            assert!(lock.is_locked());
            assert!(!lock.try_acquire(&cx));
            // SAFETY: acquired above.
            unsafe { lock.release(&cx) }.unwrap();
            let both = 0xffff_u32.wrapping_add(turn) & HEAD_MASK;
            assert_eq!(lock.word.load(Ordering::Relaxed), both << TAIL_SHIFT | both);
        }
    }
}
