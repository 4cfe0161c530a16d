//! The paravirtual queued spin lock: waiters give their CPU back after a while, and unlock wakes the one
//! whose turn it is.
//!
//! The word is that of [`RawQSpin`](crate::RawQSpin), used so:
//!
//! ```text
//!   locked   0 free, 1 locked, 3 = SLOW: locked, and the queue head is (about to be) asleep and hashed
//!   pending  the queue head is spinning: nobody may steal the lock
//!
//!   newcomer   steal while (n,0,0); stay for a while at (n,0,1), that is while a queue is there but its head
//!              sleeps; else queue
//!   in queue   spin; sleep on node.state            RUNNING -> HALTED
//!   head       set pending, spin for the lock; clear pending, hash, locked 1 -> 3, sleep on the word
//!   owner      after handing the head over: if that one is HALTED, hash it and make locked 3 on its behalf
//!   unlock     locked 1 -> 0; or 3: take the head out of the hash, locked 0, kick it
//!
//!   node.state
//!              sleeps              owner: new head             unlock: taken out of the hash
//!     RUNNING --------> HALTED -------------------> HASHED ------------------------------> RUNNING
//!        ^                |                           ^                                      |
//!        +---- wakes -----+                           +--------- head hashes itself ---------+
//! ```
//! The only kick is at unlock. HASHED means that the next unlock will take the entry out and kick; so a
//! head that is woken and finds the lock stolen goes to sleep again in full (the kernel's spins from then on,
//! because its entry is gone and it makes none anew).
//!
//! # Memory order
//! ```text
//!   sleeper                              owner, unlocker
//!   ----------------------------------   ------------------------------------------
//!   state = HALTED                       node.locked = 1
//!   fence SeqCst                         fence SeqCst              [D] one sees the other:
//!   read locked; sleep                   state HALTED -> HASHED        no lost wake-up
//!   state still HALTED? (Acquire)                                  [G] HASHED is seen: so is locked
//!
//!   enter hash, state = HASHED           read SLOW, fence Acquire  [E] the entry is there, and the state
//!   locked = SLOW (Release)   -------->  take out, state = RUNNING     is written after the head's write
//!   read word (pv_wait)       <--------  locked = 0 (Release); kick
//!
//!   read state (Acquire)      <--------  state = RUNNING (Release)   [F] who reads RUNNING reads a word
//!   read word                            locked = 0                      no older than SLOW: no second entry
//! ```
//! The rest is as in `qspinlock`. After Linux kernel/locking/qspinlock_paravirt.h. `tests/loom.rs` explores [D] to
//! [G], lost kicks included, within the bounds named there.

#[cfg(all(test, loom))]
mod hand_over_model;

use core::fmt;

use crate::context::PvOps;
use crate::error::Corrupted;
use crate::event::Event;
use crate::lock_hash::{self, HashEntry};
use crate::own_node::OwnNode;
use crate::per_cpu::{CpuId, Node, NodeId, node};
use crate::primitive::{AtomicU32, Ordering, const_new, fence};
use crate::qspinlock::{FREE, LockWord, QWord, SLOW, Waiting, acquire_in_queue};
use crate::raw::{LockType, RawLock};

/// Node state: spins, or is not in a queue.
const RUNNING: u32 = 0;
/// Node state: sleeps until it is the head, and the lock is unlocked.
const HALTED: u32 = 1;
/// Node state: in the hash; the next unlock kicks.
const HASHED: u32 = 2;

/// All bits of a node's state.
const STATE_MASK: u32 = !0;
/// The locked byte of the word.
const LOCKED_MASK: u32 = 0xff;

/// A waiter looks at its predecessor once in so many turns.
const PREV_CHECK_TURNS: u32 = 256;

/// The paravirtual queued spin lock, in one 32-bit word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct RawPvQSpin {
    word: LockWord,
}

impl RawPvQSpin {
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
    fn acquire_slow<C: PvOps>(&self, cx: &C) -> Result<(), Corrupted> {
        acquire_in_queue::<C, Suspending>(&self.word, cx)
    }

    #[cold]
    fn release_slow<C: PvOps>(&self, cx: &C, found: QWord) -> Result<(), Corrupted> {
        if found.locked() != SLOW {
            return Err(Corrupted::NotHeld { word: found.bits() });
        }
        fence(Ordering::Acquire); // [E]
        let id = lock_hash::remove(cx.pv_hash(), cx.lock_key(self.word.atomic()))?;
        // Before the unlock: until then the head cannot leave, and the node is its. [F]
        node(cx.per_cpu(), id)?.state.store(RUNNING, Ordering::Release);
        self.word.unlock();
        kick(cx, id.cpu());
        Ok(())
    }
}

/// Waits in the queue by spinning for a while, then suspended.
#[derive(Debug)]
struct Suspending;

impl<C: PvOps> Waiting<C> for Suspending {
    /// Hybrid of unfair and fair: steals as long as the queue head does not forbid it, for a while.
    fn take_before_queuing(word: &LockWord, cx: &C) -> bool {
        for _ in 0..cx.spin_threshold().max(1) {
            let seen = word.load(Ordering::Relaxed);
            if seen.is_open() && word.try_steal(seen) {
                cx.count(Event::PvLockStealing, 1);
                return true;
            }
            if !seen.has_tail() || seen.pending() {
                return false;
            }
            cx.relax();
        }
        false
    }

    fn wait_for_turn(cx: &C, mine: &OwnNode<'_>, before: NodeId) -> Result<(), Corrupted> {
        let ahead = node(cx.per_cpu(), before)?;
        loop {
            let mut turns = 0..cx.spin_threshold();
            let early = loop {
                if mine.is_head() {
                    return Ok(());
                }
                match turns.next() {
                    None => break false,
                    Some(turn) if turn % PREV_CHECK_TURNS == PREV_CHECK_TURNS - 1 => {
                        if ahead.state.load(Ordering::Relaxed) != RUNNING || !cx.is_running(before.cpu()) {
                            break true;
                        }
                    }
                    Some(_) => {}
                }
                cx.relax();
            };
            let state = &mine.node.state;
            state.store(HALTED, Ordering::Relaxed);
            fence(Ordering::SeqCst); // [D]
            if !mine.is_head() {
                cx.count(Event::PvWaitNode, 1);
                cx.count(Event::PvWaitEarly, u64::from(early));
                wait(cx, state, STATE_MASK, HALTED);
            }
            // Fails if the owner has made this node the head and HASHED it; Acquire, so that the look at
            // `locked` above sees that, and HALTED is not stored over it. [G]
            let _ = state.compare_exchange(HALTED, RUNNING, Ordering::Relaxed, Ordering::Acquire);
            cx.count(Event::PvSpuriousWakeup, u64::from(!mine.is_head()));
        }
    }

    fn wait_for_lock(word: &LockWord, cx: &C, mine: &OwnNode<'_>) -> Result<QWord, Corrupted> {
        let mut slept = false;
        loop {
            if let Some(owned) = spin_with_stealing_forbidden(word, cx) {
                return Ok(owned);
            }
            // No entry while the next unlock has one to take out, nor while an unlock that has just done so
            // has yet to free the word: it will kick. [F]
            let hashed = mine.node.state.load(Ordering::Acquire) == HASHED;
            if !hashed && word.load(Ordering::Relaxed).locked() != SLOW {
                let entry = enter_hash(word, cx, mine.id)?;
                mine.node.state.store(HASHED, Ordering::Relaxed);
                if word.set_slow() == FREE {
                    // It was free, so now it is this CPU's.
                    entry.clear();
                    word.clear_slow();
                    return Ok(word.load(Ordering::Relaxed));
                }
            }
            cx.count(Event::PvWaitHead, 1);
            cx.count(Event::PvWaitAgain, u64::from(slept));
            wait(cx, word.atomic(), LOCKED_MASK, SLOW);
            slept = true;
            // Where the owner has announced an entry, but not yet made it, there was nothing to wait for.
            cx.relax();
        }
    }

    fn new_head(word: &LockWord, cx: &C, next: &Node, id: NodeId) -> Result<(), Corrupted> {
        fence(Ordering::SeqCst); // [D]
        if next.state.compare_exchange(HALTED, HASHED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            word.set_slow();
            enter_hash(word, cx, id)?;
        }
        Ok(())
    }
}

/// Makes `id` the one whom the unlock kicks that finds SLOW.
fn enter_hash<'a, C: PvOps>(word: &LockWord, cx: &'a C, id: NodeId) -> Result<&'a HashEntry, Corrupted> {
    let (entry, hops) = lock_hash::insert(cx.pv_hash(), cx.lock_key(word.atomic()), id)?;
    cx.count(Event::PvHashHops, hops);
    Ok(entry)
}

/// The queue head's turn at the word, with the pending bit set; the word if it got the lock.
fn spin_with_stealing_forbidden<C: PvOps>(word: &LockWord, cx: &C) -> Option<QWord> {
    word.set_pending();
    let mut turns = 0..cx.spin_threshold();
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen.locked() == FREE && word.try_clear_pending_set_locked(seen) {
            return Some(word.load(Ordering::Relaxed));
        }
        if turns.next().is_none() {
            break;
        }
        cx.relax();
    }
    word.clear_pending();
    None
}

/// `pv_kick`, counted and timed.
fn kick<C: PvOps>(cx: &C, cpu: CpuId) {
    let start = cx.clock_ns();
    if start != 0
        && let Some(target) = cx.per_cpu().get(cpu.index())
    {
        target.kicked_at().store(start, Ordering::Relaxed);
    }
    cx.pv_kick(cpu);
    cx.count(Event::PvKickUnlock, 1);
    cx.count(Event::PvLatencyKick, cx.clock_ns().saturating_sub(start));
}

/// `pv_wait`, with the time since the kick counted.
fn wait<C: PvOps>(cx: &C, word: &AtomicU32, mask: u32, value: u32) {
    cx.pv_wait(word, mask, value);
    let now = cx.clock_ns();
    let me = cx.cpu().and_then(|cpu| cx.per_cpu().get(cpu.index()));
    if let (Some(me), 1..) = (me, now) {
        let kicked_at = me.kicked_at().swap(0, Ordering::Relaxed);
        if kicked_at != 0 {
            cx.count(Event::PvKickWake, 1);
            cx.count(Event::PvLatencyWake, now.saturating_sub(kicked_at));
        }
    }
}

// SAFETY: one 32-bit atomic; 0 is free.
unsafe impl LockType for RawPvQSpin {
    const NAME: &'static str = "pvqspinlock";

    fn is_locked(&self) -> bool {
        self.word().locked() != FREE
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&QWord::from_bits(word), f)
    }
}

// SAFETY: the locked byte leaves 0 by one atomic step of one CPU (steal, head with pending set, head by
// set_slow), and goes back to 0 only by the owner. Orders: see "Memory order" above.
unsafe impl<C: PvOps> RawLock<C> for RawPvQSpin {
    #[inline]
    fn acquire(&self, cx: &C) -> Result<(), Corrupted> {
        if self.word.try_lock() { Ok(()) } else { self.acquire_slow(cx) }
    }

    #[inline]
    fn try_acquire(&self, _cx: &C) -> bool {
        self.word.try_lock()
    }

    #[inline]
    unsafe fn release(&self, cx: &C) -> Result<(), Corrupted> {
        match self.word.try_unlock() {
            Ok(()) => Ok(()),
            Err(found) => self.release_slow(cx, found),
        }
    }
}
