//! That code may sleep, as a value: so that a lock that sleeps inside one that spins does not compile.
//!
//! A lock that sleeps borrows the value exclusively, for as long as the call lasts. A lock that spins shares it for as
//! long as it is held. So locks that spin nest in both kinds, and locks that sleep in their own only. Who does
//! not use it has the check at run time (`debug-checks`).

use core::fmt;
use core::marker::PhantomData;

use crate::form::Plain;
use crate::lock::{Guard, Lock};
use crate::marker::{Names, OfThisCpu};
use crate::platform::Platform;
use crate::sleeping::{SleepLock, Sleeping};
use crate::spinning::Spinning;

/// The running task may sleep.
pub struct MaySleep<P>(Names<P>, OfThisCpu);

impl<P> fmt::Debug for MaySleep<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaySleep")
    }
}

impl<P: Platform> MaySleep<P> {
    /// `None` in atomic context: in a handler, or where preemption or interrupts are disabled.
    #[must_use]
    pub fn here() -> Option<Self> {
        (P::preempt_count().may_sleep() && !P::irqs_disabled()).then_some(Self(PhantomData, PhantomData))
    }
}

impl<P: Platform, T: ?Sized> Lock<P, Spinning<P>, T> {
    /// [`Lock::lock`], by a task that may sleep, but not before the guard is gone.
    #[inline]
    #[track_caller]
    pub fn lock_atomic<'a>(&'a self, may_sleep: &'a MaySleep<P>) -> Guard<'a, P, Spinning<P>, T, Plain> {
        let _ = may_sleep;
        self.lock()
    }
}

impl<P: Platform, S: SleepLock, T: ?Sized> Lock<P, Sleeping<P, S>, T> {
    /// [`Lock::lock`], by a task that may sleep.
    #[inline]
    #[track_caller]
    pub fn lock_sleeping(&self, may_sleep: &mut MaySleep<P>) -> Guard<'_, P, Sleeping<P, S>, T, Plain> {
        let _ = may_sleep;
        self.lock()
    }
}
