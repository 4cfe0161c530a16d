//! The queued spin lock of Linux: one compare-exchange when nobody waits, one spinner on the word when
//! one does, an MCS queue when more do.
//!
//! ```text
//!   word   31             18 17   16 15         8 7          0
//!         +-----------------+-------+------------+------------+
//!         |   tail CPU + 1  | index |  pending   |   locked   |      (tail, pending, locked)
//!         +-----------------+-------+------------+------------+
//!
//!                      fast      :     slow                                :    unlock
//!   uncontended      (0,0,0) ----:---> (0,0,1) ----------------------------:--> (*,*,0)
//!                                :       | second: set pending             :
//!   pending                      :     (0,1,1) --> (0,1,0) --> (0,0,1)     :
//!                                :       | third: exchange tail  ^         :
//!   queue head, alone            :     (n,x,y) --> (n,0,0) ------+         :
//!                                :       | later ones            |         :
//!   queue head, others behind    :     (*,x,y) --> (*,0,0) --> (*,0,1)     :
//! ```
//! A newcomer exchanges the locked byte alone, 0 -> 1, and then looks at the rest of the word: where somebody waits
//! it takes that back, and queues. (A wider exchange would be exact, but two and a half times slower right after
//! a release; see `primitive`.) So a waiter may see the lock taken for a moment, and takes it by an exchange
//! that can fail.
//!
//! The owner is not named: `locked` is 1. A waiter beyond the second needs a node only while it waits,
//! so a critical section may move, nest and end in any order.
//!
//! # Memory order
//! Every change of the word is one atomic read-modify-write, so the Release of an unlock heads a release
//! sequence that all later values of the word belong to, whoever changes tail or pending in between
//! (Relaxed is enough for those). Whoever becomes the owner has read `locked == 0` with Acquire, and so
//! sees the critical section before its own. Links between nodes are argued in `queue`.
//!
//! After Linux kernel/locking/qspinlock.c and its documentation; correctness of the orderings is checked
//! by `tests/loom.rs`.

mod queue;
#[cfg(any(loom, shuttle))]
pub mod transitions;
mod word;

pub(crate) use queue::{Waiting, acquire_in_queue};
pub use word::QWord;
pub(crate) use word::{FREE, LockWord, SLOW};

use core::fmt;

use crate::context::Context;
use crate::error::Corrupted;
use crate::event::Event;
use crate::own_node::OwnNode;
use crate::per_cpu::NodeId;
use crate::primitive::{Ordering, const_new};
use crate::raw::{LockType, RawLock};

/// How long a newcomer waits for a hand-over from pending to locked before it queues, in spin turns.
const HAND_OVER_TURNS: u32 = 1 << 9;

/// The queued spin lock, in one 32-bit word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct RawQSpin {
    word: LockWord,
}

impl RawQSpin {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self { word: LockWord::new(FREE) }
        }
    }

    /// The lock word as it is now.
    pub fn word(&self) -> QWord {
        self.word.load(Ordering::Relaxed)
    }

    #[cold]
    fn acquire_slow<C: Context>(&self, cx: &C) -> Result<(), Corrupted> {
        if self.acquire_as_pending(cx) {
            cx.count(Event::LockPending, 1);
            return Ok(());
        }
        acquire_in_queue::<C, Spinning>(&self.word, cx)
    }

    /// `0,0,1 -> 0,1,1 -> 0,1,0 -> 0,0,1`, or false where others wait already.
    fn acquire_as_pending<C: Context>(&self, cx: &C) -> bool {
        if self.await_hand_over(cx).is_contended() {
            return false;
        }
        let before = self.word.set_pending();
        if before.is_contended() {
            if !before.pending() {
                self.word.clear_pending();
            }
            return false;
        }
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen.locked() == FREE && self.word.try_clear_pending_set_locked(seen) {
                return true;
            }
            cx.relax();
        }
    }

    /// Lets a waiter that is between `0,1,0` and `0,0,1` finish, so that this one need not queue.
    fn await_hand_over<C: Context>(&self, cx: &C) -> QWord {
        let mut seen = self.word();
        let mut turns = HAND_OVER_TURNS;
        while seen.pending() && seen.locked() == FREE && !seen.has_tail() && turns > 0 {
            cx.relax();
            seen = self.word.load(Ordering::Relaxed);
            turns -= 1;
        }
        seen
    }
}

/// Waits in the queue by spinning.
#[derive(Debug)]
struct Spinning;

impl<C: Context> Waiting<C> for Spinning {
    fn take_before_queuing(word: &LockWord, _cx: &C) -> bool {
        word.load(Ordering::Relaxed).bits() == FREE && word.try_lock()
    }

    fn wait_for_turn(cx: &C, mine: &OwnNode<'_>, _before: NodeId) -> Result<(), Corrupted> {
        while !mine.is_head() {
            cx.relax();
        }
        Ok(())
    }

    fn wait_for_lock(word: &LockWord, cx: &C, mine: &OwnNode<'_>) -> Result<QWord, Corrupted> {
        loop {
            let seen = word.load(Ordering::Relaxed);
            if seen.is_open()
                && let Some(owned) = word.try_lock_as_head(seen, mine.id)
            {
                return Ok(owned);
            }
            cx.relax();
        }
    }
}

// SAFETY: one 32-bit atomic; 0 is free.
unsafe impl LockType for RawQSpin {
    const NAME: &'static str = "qspinlock";

    fn is_locked(&self) -> bool {
        self.word().bits() != 0
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&QWord::from_bits(word), f)
    }
}

// SAFETY: the locked byte goes 0 -> 1 by compare-exchange only, and back to 0 only by the one who did that.
// Orders: see "Memory order" above.
unsafe impl<C: Context> RawLock<C> for RawQSpin {
    #[inline]
    fn acquire(&self, cx: &C) -> Result<(), Corrupted> {
        if self.word.try_lock_low_byte() { Ok(()) } else { self.acquire_slow(cx) }
    }

    #[inline]
    fn try_acquire(&self, _cx: &C) -> bool {
        self.word.try_lock_low_byte()
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) -> Result<(), Corrupted> {
        self.word.unlock();
        Ok(())
    }
}
