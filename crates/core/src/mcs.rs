//! The MCS queue lock, in the K42 form: each waiter spins on a line of its own, and needs its node only
//! while it waits, not while it owns.
//!
//! ```text
//!   tail   0 = free, HELD = held and nobody waits, else the NodeId of the last waiter
//!   next   the NodeId of the first waiter, once it has linked itself; the owner's to read
//!
//!    tail:  0 --acquire--> HELD --second--> n1 --third--> n2
//!           <--release---       ----------------------------
//!                              link:   owner.next = n1,  n1.next = n2
//!                              hand-over:  n1.locked = 1; n1 moves its own next into the lock's `next`
//!                                          (or puts tail back to HELD) and has its node free again
//! ```
//! Mellor-Crummey and Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors",
//! ACM TOCS 9(1), 1991; the variant is described in M. L. Scott, "Shared-Memory Synchronization", 2013,
//! section 4.3.1.

use core::fmt;

use crate::context::Context;
use crate::error::Corrupted;
use crate::own_node::OwnNode;
use crate::per_cpu::{Node, NodeId, PerCpu, node};
use crate::primitive::{AtomicU32, Ordering, const_new};
use crate::raw::{LockType, RawLock};

const FREE: u32 = 0;
/// Held, nobody waits: a value that is no [`NodeId`] (it names no CPU).
const HELD: u32 = 1;

/// An MCS lock in two 32-bit words.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RawMcs {
    tail: AtomicU32,
    next: AtomicU32,
}

impl RawMcs {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self { tail: AtomicU32::new(FREE), next: AtomicU32::new(0) }
        }
    }

    #[inline]
    fn try_take(&self) -> bool {
        // Acquire: pairs with the Release that frees the tail in `release`.
        self.tail.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn queue<C: Context>(&self, cx: &C) -> Result<(), Corrupted> {
        let Some(mine) = OwnNode::take(cx) else {
            while !self.try_take() {
                cx.relax();
            }
            return Ok(());
        };
        match self.exchange_tail(cx.per_cpu(), mine.id)? {
            FREE => {}
            HELD => {
                self.next.store(mine.id.bits(), Ordering::Release);
                self.wait_for_turn(cx, &mine);
            }
            waiter => {
                named_node(cx.per_cpu(), waiter)?.next.store(mine.id.bits(), Ordering::Release);
                self.wait_for_turn(cx, &mine);
            }
        }
        self.leave_node(cx, &mine);
        Ok(())
    }

    /// Becomes the last waiter; gives the tail before, which is refused if it names no other waiter's node.
    fn exchange_tail(&self, cpus: &[PerCpu], id: NodeId) -> Result<u32, Corrupted> {
        let mut before = self.tail.load(Ordering::Relaxed);
        loop {
            if before != FREE && before != HELD {
                named_node(cpus, before)?;
                if before == id.bits() {
                    return Err(Corrupted::NoSuchNode { bits: before });
                }
            }
            // Release: publishes the node's initial state to the successor, who finds us here.
            // Acquire: the predecessor's node is initialised, and where the lock was free, pairs with `release`.
            match self.tail.compare_exchange(before, id.bits(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return Ok(before),
                Err(found) => before = found,
            }
        }
    }

    fn wait_for_turn<C: Context>(&self, cx: &C, mine: &OwnNode<'_>) {
        // Acquire: pairs with the Release of the hand-over in `release`.
        while mine.node.locked.load(Ordering::Acquire) == 0 {
            cx.relax();
        }
    }

    /// Now owner: moves what the node knows into the lock, so that the node is free.
    fn leave_node<C: Context>(&self, cx: &C, mine: &OwnNode<'_>) {
        // Relaxed: `next` belongs to the owner until a successor finds HELD in the tail.
        self.next.store(0, Ordering::Relaxed);
        if mine.node.next.load(Ordering::Relaxed) == 0
            // Release: whoever finds HELD writes `next`, after the store above.
            && self
                .tail
                .compare_exchange(mine.id.bits(), HELD, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        {
            return;
        }
        let next = wait_nonzero(cx, &mine.node.next);
        self.next.store(next, Ordering::Relaxed);
    }
}

/// The node that `bits` names.
fn named_node(cpus: &[PerCpu], bits: u32) -> Result<&Node, Corrupted> {
    node(cpus, NodeId::from_bits(bits)?.ok_or(Corrupted::NoSuchNode { bits })?)
}

/// Waits for a link that somebody who has swapped the tail is about to write.
fn wait_nonzero<C: Context>(cx: &C, link: &AtomicU32) -> u32 {
    loop {
        // Acquire: pairs with the Release of the link in `queue`; the linked node is initialised.
        match link.load(Ordering::Acquire) {
            0 => cx.relax(),
            next => return next,
        }
    }
}

// SAFETY: two 32-bit atomics; 0 is free.
unsafe impl LockType for RawMcs {
    const NAME: &'static str = "mcs";

    fn is_locked(&self) -> bool {
        self.tail.load(Ordering::Relaxed) != FREE
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (word, NodeId::from_bits(word)) {
            (FREE, _) => f.write_str("free"),
            (HELD, _) => f.write_str("held, nobody waits"),
            (_, Ok(Some(id))) => write!(f, "held, last waiter cpu {} node {}", id.cpu().index(), id.index()),
            (other, _) => write!(f, "garbage {other:#010x}"),
        }
    }
}

// SAFETY: exactly one CPU finds FREE in the tail, and exactly one is handed the lock by the owner; both
// hand-overs are Release to Acquire.
unsafe impl<C: Context> RawLock<C> for RawMcs {
    #[inline]
    fn acquire(&self, cx: &C) -> Result<(), Corrupted> {
        if self.try_take() { Ok(()) } else { self.queue(cx) }
    }

    #[inline]
    fn try_acquire(&self, _cx: &C) -> bool {
        self.try_take()
    }

    #[inline]
    unsafe fn release(&self, cx: &C) -> Result<(), Corrupted> {
        if self.next.load(Ordering::Relaxed) == 0 {
            match self.tail.compare_exchange(HELD, FREE, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(FREE) => return Err(Corrupted::NotHeld { word: FREE }),
                // Somebody has queued, and is about to link itself, if it exists.
                Err(last) => named_node(cx.per_cpu(), last).map(|_| ())?,
            }
        }
        let next = wait_nonzero(cx, &self.next);
        // Release: pairs with the Acquire in `wait_for_turn`.
        named_node(cx.per_cpu(), next)?.locked.store(1, Ordering::Release);
        Ok(())
    }
}
