//! Locks whose waiters spin.

use crate::arch::{ArchSpinLock, Failure};
use crate::form::Form;
use crate::kind::Kind;
use crate::lock::{Guard, Lock};
use crate::platform::Platform;
use crate::report::Problem;

/// The kind whose waiters spin, whatever the algorithm of the platform.
#[derive(Debug)]
#[repr(transparent)]
pub struct Spinning<P: Platform>(P::Arch);

impl<P: Platform> Spinning<P> {
    /// The arch lock.
    pub const fn arch(&self) -> &P::Arch {
        &self.0
    }
}

// SAFETY: the arch lock's; `enter` keeps the caller on its CPU.
unsafe impl<P: Platform> Kind<P> for Spinning<P> {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(P::Arch::INIT);
    const SLEEPS: bool = false;
    const KNOWS: bool = P::Arch::KNOWS;

    #[inline]
    #[track_caller]
    fn enter<F: Form>() {
        F::enter::<P>();
    }

    #[inline]
    unsafe fn exit<F: Form>() {
        // SAFETY: the caller's.
        unsafe { F::exit::<P>() };
    }

    #[inline]
    fn acquire(&self) -> Result<(), Problem> {
        self.0.acquire(&P::CONTEXT).map_err(Problem::from)
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.0.try_acquire(&P::CONTEXT)
    }

    #[inline]
    unsafe fn release(&self) -> Result<(), Problem> {
        // SAFETY: the caller owns the lock.
        let released = unsafe { self.0.release(&P::CONTEXT) };
        released.map_err(Problem::from)
    }

    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn is_contended(&self) -> bool {
        self.0.is_contended()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Corrupted(corrupted) => Self::Corrupted(corrupted),
            Failure::Recursion => Self::Recursion,
        }
    }
}

/// `raw_spinlock_t`: its waiters spin, on every platform, and its holder is not preempted.
pub type RawSpinLock<P, T> = Lock<P, Spinning<P>, T>;

/// Holds a [`RawSpinLock`].
pub type RawSpinLockGuard<'a, P, T, F> = Guard<'a, P, Spinning<P>, T, F>;

/// `spinlock_t`: the same as [`RawSpinLock`], or a lock that sleeps, as the platform chooses.
pub type SpinLock<P, T> = Lock<P, <P as Platform>::Spin, T>;

/// Holds a [`SpinLock`].
pub type SpinLockGuard<'a, P, T, F> = Guard<'a, P, <P as Platform>::Spin, T, F>;
