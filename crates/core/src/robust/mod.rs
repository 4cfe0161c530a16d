//! The robust lock: named in the word that takes it, so that nobody's death stops the others.
//!
//! ```text
//!              acquire                         release
//!     0 ------------------> name ------------------------------> 0
//!     |                      |  ^                                |
//!     |   release, for who   |  | acquire by h, or by            | release, for who
//!     |   waited too long    |  | anybody if h is not there      | has waited too long
//!     |                      |  |                                v
//!     |                      |  +------------------------ RESERVED h
//!     |                      | the owner dies, and a survivor finds it
//!     |                      v
//!     |            survivor + DIED ---- mark_consistent ----> survivor
//!     |                      |
//!     |                      +--- release without it -------> LOST
//!     +-- a panic inside, or a survivor that does not look: free, but DIED or POISONED
//! ```
//! - **The owner word is the truth.** One compare-exchange takes the lock and says who has it. Only the word decides
//!   who owns; there is no instruction after which a crash leaves a lock that is taken by nobody.
//! - **The queue is advice.** Waiters sit in [`Seat`]s, each its own, with a ticket; there are no links, so nothing
//!   has to be repaired when one dies: it is not counted any more. The one with the lowest ticket is the *head*
//!   and competes for the word; the others sleep, each on the one before it.
//! - **Who runs goes on.** A release wakes the head and does not wait for it: who comes meanwhile may take the lock.
//!   A head that has been passed over for long asks for the lock to be reserved for it. One that was woken and does not
//!   come, for it finds no CPU, has it reserved by the owners after [`HAND_OVER_NS`].
//! - **Everyone asleep is woken by a kick, or by the death of the one it watches.** The head watches the owner, the
//!   others the one before them. Why the one watched is the right one is argued in [`queue`].
//!
//! # Memory order
//! The word is taken with Acquire and given up with Release, which orders the data. The rest is three pairs in which
//! each side writes and then looks at what the other has written, with full barriers in between, so that at least
//! one of them sees the other:
//! ```text
//!   [S] release: owner = 0        | attention?     head:   attention = SLEEPS   | owner?      then sleeps
//!   [W] leaving: seat.key = 0     | who watches?   waiter: watches = that one   | still there? then sleeps
//!   [J] joining: seat.key = lock  | who is there?  the same, by two who join at once
//! ```
//! In [S] the barrier of the releasing side is on the hot path. Where there is a
//! [heavy barrier](RobustOps::heavy_barrier), the head issues one for both sides, and the release is a plain store (after Dice, Huang and
//! Yang, "Asymmetric Dekker synchronization", 2001); where there is none, the release is an exchange. The heavy barrier
//! interrupts all CPUs, so a head does without it at first: should it miss a release in that very moment, it
//! looks again when it has waited for [`HAND_OVER_NS`], and then pays.
//!
//! After the robust futexes of Linux (Documentation/locking/robust-futex-ABI), whose word also names its owner,
//! and the eventual fairness of WebKit's WTF::Lock.

mod ops;
mod queue;
mod rescue;
mod rw;
mod seat;
mod stats;
mod word;

use core::fmt;

pub use ops::RobustOps;
pub use rw::RawRobustRw;
pub use seat::{READS, Seat};
pub use stats::RobustStats;
use stats::Stats;
use thiserror::Error;
use word::{Attention, Wish, is_kicked};
pub use word::{Condition, Name, Ownership};

use crate::error::Corrupted;
use crate::per_cpu::CpuId;
use crate::primitive::{AtomicU64, Ordering, const_new, fence_after_exchange, light_barrier, release_order};
use crate::raw::LockType;

/// After how long at the head of the queue a waiter is not passed over any more, in nanoseconds.
pub const HAND_OVER_NS: u64 = 500_000;

/// For how long a head is passed over at least, in nanoseconds, however long it has waited behind others.
const PASS_OVER_NS: u64 = 200_000;

/// While a head that was kicked does not come, one of so many releases looks at the clock.
const LOOKS: u64 = 256;

/// Until when a head that has waited since then lets others pass.
fn patience<C: RobustOps>(cx: &C, since_ns: u64) -> u64 {
    since_ns.saturating_add(HAND_OVER_NS).max(cx.now_ns().saturating_add(PASS_OVER_NS))
}

/// Nobody who waits sleeps longer without a look, in nanoseconds.
const NAP_NS: u64 = 50_000_000;

/// A lock that is taken over from owners that died; see the module's documentation.
#[repr(C)]
#[derive(Default)]
pub struct RawRobust {
    owner: AtomicU64,
    attention: AtomicU64,
    tickets: AtomicU64,
    /// Statistics: written by the owner.
    stats: Stats,
}

/// Why somebody did not get the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The time was over.
    #[error("the lock was not free in time")]
    TimedOut,
    /// An owner that was told of a death left without marking the data consistent.
    #[error("the data are given up: an owner died inside, and the next one did not mark them consistent")]
    NotRecoverable,
    /// The caller owns the lock already.
    #[error("this thread has locked it already")]
    Deadlock,
    /// The caller reads under as many locks as it can.
    #[error("this thread reads under {READS} locks already, and cannot under more at once")]
    TooManyReads,
    /// A peer wrote garbage.
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
}

/// What a look at the owner word gave.
enum Look {
    /// The lock, in that condition of the data.
    Taken(Condition),
    /// That one has it, or is to have it.
    Busy(Name),
}

/// Whether somebody may take a lock that is reserved for another who lives and waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// A newcomer may not: it would undo the hand-over.
    Polite,
    /// The head may, for the reservation is of another time; and so may who cannot wait.
    Rude,
}

impl RawRobust {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self {
                owner: AtomicU64::new(0),
                attention: AtomicU64::new(0),
                tickets: AtomicU64::new(0),
                stats: Stats::new(),
            }
        }
    }

    /// Waits until the lock is free or its owner dead, and takes it for `me`. The condition tells whether the data
    /// can be trusted.
    ///
    /// # Errors
    /// [`Refused`], except [`Refused::TimedOut`].
    #[inline]
    pub fn acquire<C: RobustOps>(&self, cx: &C, me: Name) -> Result<Condition, Refused> {
        self.acquire_until(cx, me, u64::MAX)
    }

    /// As [`RawRobust::acquire`], but waits at most until the clock of `cx` shows `until_ns`.
    ///
    /// # Errors
    /// [`Refused`].
    #[inline]
    pub fn acquire_until<C: RobustOps>(&self, cx: &C, me: Name, until_ns: u64) -> Result<Condition, Refused> {
        if self.take_free(me) { Ok(Condition::CONSISTENT) } else { self.acquire_slowly(cx, me, until_ns) }
    }

    /// Takes the lock for `me` if it is free or its owner dead; never waits. `None` where somebody has it.
    ///
    /// # Errors
    /// [`Refused::NotRecoverable`], [`Refused::Corrupted`].
    #[inline]
    pub fn try_acquire<C: RobustOps>(&self, cx: &C, me: Name) -> Result<Option<Condition>, Refused> {
        if self.take_free(me) {
            return Ok(Some(Condition::CONSISTENT));
        }
        match self.look(cx, me, Manners::Rude) {
            Ok(Look::Taken(condition)) => Ok(Some(condition)),
            Ok(Look::Busy(_)) | Err(Refused::Deadlock) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Gives the lock up. Data that an owner's death has left, and that nobody has marked consistent since, are lost:
    /// nobody gets the lock any more. Poisoned data stay so.
    ///
    /// # Errors
    /// [`Corrupted::NotOwner`]: somebody has taken the lock away, or written garbage; it is left as it is.
    ///
    /// # Safety
    /// The caller owns the lock under the name `me`.
    #[inline]
    pub unsafe fn release<C: RobustOps>(&self, cx: &C, me: Name) -> Result<(), Corrupted> {
        if self.owner.load(Ordering::Relaxed) == me.bits() {
            self.let_go(cx, 0);
            return Ok(());
        }
        let condition = self.condition(me)?;
        self.leave(cx, if condition.owner_died { Ownership::Lost } else { Ownership::Free(condition) });
        Ok(())
    }

    /// Gives the lock up, and says in what condition the data are: the next owner will be told.
    ///
    /// # Errors
    /// As [`RawRobust::release`].
    ///
    /// # Safety
    /// As [`RawRobust::release`].
    #[cold]
    pub unsafe fn release_as<C: RobustOps>(
        &self,
        cx: &C,
        me: Name,
        condition: Condition,
    ) -> Result<(), Corrupted> {
        self.condition(me)?;
        self.leave(cx, Ownership::Free(condition));
        Ok(())
    }

    /// Says that the data are as they should be, whatever has happened.
    ///
    /// # Errors
    /// As [`RawRobust::release`].
    ///
    /// # Safety
    /// As [`RawRobust::release`].
    pub unsafe fn mark_consistent(&self, me: Name) -> Result<(), Corrupted> {
        self.amend(me, Condition::CONSISTENT)
    }

    /// By the owner: the condition of the data is this one.
    fn amend(&self, me: Name, condition: Condition) -> Result<(), Corrupted> {
        let found = Ownership::Held(me, self.condition(me)?).encode();
        let amended = Ownership::Held(me, condition).encode();
        let done = self.owner.compare_exchange(found, amended, Ordering::Relaxed, Ordering::Relaxed);
        done.map(|_| ()).map_err(|word| Corrupted::NotOwner { word })
    }

    /// What the owner word says; old news when it arrives.
    ///
    /// # Errors
    /// [`Corrupted::NoSuchOwner`].
    pub fn ownership(&self) -> Result<Ownership, Corrupted> {
        Ownership::decode(self.owner.load(Ordering::Relaxed))
    }

    /// The owner word: for those who look on, and for tests that must break it.
    #[doc(hidden)]
    pub fn owner_word(&self) -> &AtomicU64 {
        &self.owner
    }

    #[inline]
    fn take_free(&self, me: Name) -> bool {
        let taken = self.owner.compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed).is_ok();
        if taken {
            self.count_acquisition();
        }
        taken
    }

    /// Takes the lock if it can be had.
    fn look<C: RobustOps>(&self, cx: &C, me: Name, manners: Manners) -> Result<Look, Refused> {
        let mut word = self.owner.load(Ordering::Relaxed);
        loop {
            let condition = match Ownership::decode(word)? {
                Ownership::Free(condition) => condition,
                Ownership::Held(name, _) if name == me => return Err(Refused::Deadlock),
                Ownership::Held(name, condition) if cx.is_dead(name) => condition.after_death(),
                Ownership::Held(name, _) => return Ok(Look::Busy(name)),
                Ownership::Reserved(name) => {
                    if name != me && manners == Manners::Polite && self.is_waiting(cx, name.slot()) {
                        return Ok(Look::Busy(name));
                    }
                    Condition::CONSISTENT
                }
                Ownership::Lost => return Err(Refused::NotRecoverable),
            };
            let mine = Ownership::Held(me, condition).encode();
            match self.owner.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.count_acquisition();
                    return Ok(Look::Taken(condition));
                }
                Err(changed) => word = changed,
            }
        }
    }

    /// The condition of the data, for their owner.
    fn condition(&self, me: Name) -> Result<Condition, Corrupted> {
        let word = self.owner.load(Ordering::Relaxed);
        match Ownership::decode(word) {
            Ok(Ownership::Held(name, condition)) if name == me => Ok(condition),
            _ => Err(Corrupted::NotOwner { word }),
        }
    }

    #[cold]
    fn leave<C: RobustOps>(&self, cx: &C, left: Ownership) {
        self.let_go(cx, left.encode());
        if left == Ownership::Lost {
            self.kick_all(cx);
        }
    }

    #[inline]
    fn let_go<C: RobustOps>(&self, cx: &C, word: u64) {
        if cx.has_heavy_barrier() {
            self.owner.store(word, release_order());
            // [S]: the other half is the heavy barrier of the head.
            light_barrier();
        } else {
            self.owner.swap(word, release_order());
            fence_after_exchange();
        }
        let attention = self.attention.load(Ordering::Relaxed);
        if attention != 0 && (!is_kicked(attention) || self.acquisitions().is_multiple_of(LOOKS)) {
            self.attend(cx);
        }
    }

    /// Looks after the head, once the lock is free.
    #[cold]
    fn attend<C: RobustOps>(&self, cx: &C) {
        let word = self.attention.load(Ordering::Acquire);
        let said = Attention::decode(word);
        let has_been_kicked = said.is_some_and(|said| said.wish == Wish::Kicked);
        if word == 0 {
            return;
        }
        let waiter = said.filter(|said| self.is_waiting(cx, said.waiter));
        let seat = waiter.and_then(|said| cx.seats().get(said.waiter.index()));
        if seat.filter(|_| has_been_kicked).is_some_and(|seat| seat.is_patient(cx.now_ns())) {
            return;
        }
        if let Some(Attention { wish: Wish::Reserve | Wish::ReserveAndKick | Wish::Kicked, waiter, .. }) =
            waiter
            && let Some(name) = cx.name_of(waiter)
        {
            let reserved = Ownership::Reserved(name).encode();
            // Should somebody be faster here, it is asked again at its release.
            let _ = self.owner.compare_exchange(0, reserved, Ordering::Release, Ordering::Relaxed);
        }
        let mut next = 0;
        match (waiter, seat) {
            (Some(Attention { wish: Wish::Reserve, .. }), _) => return,
            (Some(said @ Attention { wish: Wish::Kick, .. }), Some(seat)) => {
                seat.be_patient(cx.now_ns());
                next = Attention { wish: Wish::Kicked, ..said }.encode();
            }
            _ => {}
        }
        if let Some(waiter) = waiter.map(|said| said.waiter).or_else(|| self.first(cx)) {
            cx.kick(waiter);
        }
        // Only after the kick: whoever releases in between kicks as well, for this one may die before it does.
        self.replace_attention(word, next);
    }

    fn replace_attention(&self, old: u64, new: u64) -> bool {
        self.attention.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: 64-bit atomics, 64 bytes together; zero is free.
unsafe impl LockType for RawRobust {
    const NAME: &'static str = "robust";

    fn is_locked(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != 0
    }

    /// The lower half of the owner word names the slot alone.
    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CpuId::new((word as usize & CpuId::MAX.index()).wrapping_sub(1)) {
            Some(slot) => write!(f, "participant {}", slot.index()),
            None => f.write_str("nobody"),
        }
    }
}

impl fmt::Debug for RawRobust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRobust")
            .field("owner", &self.ownership())
            .field("attention", &Attention::decode(self.attention.load(Ordering::Relaxed)))
            .field("stats", &self.stats())
            .finish()
    }
}
