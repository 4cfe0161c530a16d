//! A sleeping lock with priority inheritance: the futex operations `FUTEX_LOCK_PI` and `FUTEX_UNLOCK_PI`.
//!
//! ```text
//!   word   31        30       29                      0
//!         +---------+--------+-------------------------+
//!         | WAITERS |  DIED  |  thread id of the owner |     0 = free
//!         +---------+--------+-------------------------+
//!
//!   free -> owned, owned -> free: a compare-exchange here; all that involves WAITERS is the kernel's
//! ```
//! While somebody sleeps, the owner runs with the priority of the most important sleeper.
//!
//! An owner that ends while others sleep is replaced by the kernel, which sets DIED. One that ends while nobody
//! does leaves its name behind: the kernel tells the next one that there is no such thread (`ESRCH`), and that one
//! takes the word over; see `take_over`. (Until then a new thread may get the dead one's number, and pass for the owner.
//! Such deaths come of guards that are forgotten; no word of this size could tell.)

use std::sync::{Mutex, PoisonError};

use crosslock_core::primitive::{AtomicU32, Ordering};
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, OWNER_DIED, WAITERS};
use rustix::thread::sched_yield;

use crate::hosted::cpu::thread_id;
use crate::report::Problem;
use crate::sleeping::SleepLock;

const FREE: u32 = 0;
/// The bits of the thread id.
const TID_MASK: u32 = !(WAITERS | OWNER_DIED);

/// A lock in one 32-bit word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct PiFutex(AtomicU32);

impl PiFutex {
    /// The thread id of the owner, as threads are known to the system.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed) & TID_MASK).filter(|tid| *tid != 0)
    }

    fn exchange(&self, from: u32, to: u32, order: Ordering) -> bool {
        self.0.compare_exchange(from, to, order, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slow(&self, me: u32) -> Result<(), Problem> {
        loop {
            match futex::lock_pi(self.0.as_core(), Flags::PRIVATE, None) {
                Ok(()) => return self.told_of_death(),
                // A signal came; or the owner is about to end; or it has ended, and a sleeper is about to own.
                Err(Errno::INTR | Errno::AGAIN | Errno::INVAL) => sched_yield(),
                Err(Errno::DEADLK) => return Err(Problem::Recursion),
                Err(Errno::SRCH) => {
                    if self.take_over(me)? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(Problem::WaitFailed { errno: error.raw_os_error() }),
            }
        }
    }

    /// The lock is the caller's; whether from somebody who ended.
    fn told_of_death(&self) -> Result<(), Problem> {
        if self.0.load(Ordering::Relaxed) & OWNER_DIED == 0 {
            return Ok(());
        }
        self.0.fetch_and(!OWNER_DIED, Ordering::Relaxed);
        Err(Problem::OwnerDied)
    }

    /// Takes the place of an owner that ended while nobody slept; whether it could.
    ///
    /// The kernel says `ESRCH` if the word names no living thread, and nobody sleeps whom it is about to make the owner.
    /// From then on only this function can take the name of the dead out of the word, and only under one lock for
    /// all: so the exchange cannot meet the same number as the name of a new thread. What may change meanwhile is
    /// WAITERS, which the kernel sets before it looks.
    #[cold]
    fn take_over(&self, me: u32) -> Result<bool, Problem> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        match futex::trylock_pi(self.0.as_core(), Flags::PRIVATE) {
            // Somebody else has taken it over, and may have released it.
            Ok(true) => return self.told_of_death().map(|()| true),
            Err(Errno::SRCH) => {}
            Ok(false) | Err(_) => return Ok(false),
        }
        loop {
            // Acquire: what the dead one has done under the lock; it was ended by the kernel before this.
            let seen = self.0.load(Ordering::Acquire);
            if self.exchange(seen, me | seen & WAITERS, Ordering::Acquire) {
                return Err(Problem::OwnerDied);
            }
        }
    }
}

// SAFETY: the word names one thread, by an exchange from 0 here or by the kernel, until that one releases it, or has
// ended. Acquire and Release on the word; in the kernel there are full barriers.
unsafe impl SleepLock for PiFutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(AtomicU32::new(FREE));

    #[inline]
    fn acquire(&self) -> Result<(), Problem> {
        let me = thread_id();
        if self.exchange(FREE, me, Ordering::Acquire) { Ok(()) } else { self.acquire_slow(me) }
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.exchange(FREE, thread_id(), Ordering::Acquire)
    }

    #[inline]
    unsafe fn release(&self) -> Result<(), Problem> {
        if self.exchange(thread_id(), FREE, Ordering::Release) {
            return Ok(());
        }
        let caller = u64::from(thread_id());
        futex::unlock_pi(self.0.as_core(), Flags::PRIVATE).map_err(|error| match error {
            Errno::PERM => Problem::NotOwner { owner: u64::from(self.owner().unwrap_or(0)), caller },
            error => Problem::WaitFailed { errno: error.raw_os_error() },
        })
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }

    fn is_contended(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WAITERS != 0
    }
}
