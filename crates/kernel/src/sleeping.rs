//! The preemptible form of `spinlock`, as on a real-time kernel: who waits sleeps, and who holds may be preempted.
//!
//! | | [`Spinning`](crate::Spinning) | [`Sleeping`] |
//! |---|---|---|
//! | a waiter | spins | sleeps; the owner inherits its priority |
//! | `lock` | preemption off | stays on its CPU, may be preempted |
//! | `lock_irq`, `lock_irqsave` | interrupts off, preemption off | as `lock`: interrupts stay on |
//! | `lock_bh` | bottom halves off, preemption off | bottom halves off; may be preempted |
//! | in a handler, or inside a `RawSpinLock` | in the right form | never: reported with `debug-checks` |
//!
//! That interrupts stay on is right where handlers run in threads of their own, as on such kernels; a handler that does
//! not may take a [`RawSpinLock`](crate::RawSpinLock) only.

use core::marker::PhantomData;

use crate::form::{Form, FormKind};
use crate::kind::Kind;
use crate::local;
use crate::platform::Platform;
use crate::preempt_count::SOFTIRQ_DISABLE_OFFSET;
use crate::report::Problem;

/// A lock whose waiters sleep.
///
/// # Safety
/// At most one caller is between a successful `acquire` or `try_acquire` and its `release`, and sees what the one
/// before it wrote.
pub unsafe trait SleepLock: Sync {
    /// A free lock.
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value, copied wherever it is named")]
    const INIT: Self;

    /// Sleeps until the lock is free, and takes it.
    ///
    /// # Errors
    /// As [`Kind::acquire`]: with [`Problem::OwnerDied`] the caller has the lock.
    fn acquire(&self) -> Result<(), Problem>;

    /// Takes the lock if it is free.
    fn try_acquire(&self) -> bool;

    /// Gives the lock up.
    ///
    /// # Errors
    /// What shows that the lock is damaged.
    ///
    /// # Safety
    /// The caller owns the lock.
    unsafe fn release(&self) -> Result<(), Problem>;

    /// Whether somebody holds the lock; old news when it arrives.
    fn is_locked(&self) -> bool;

    /// Whether somebody waits for it.
    fn is_contended(&self) -> bool;
}

/// The kind whose waiters sleep, on a lock `S` of the platform.
#[derive(Debug)]
#[repr(transparent)]
pub struct Sleeping<P, S>(S, PhantomData<fn() -> P>);

impl<P, S> Sleeping<P, S> {
    /// The lock underneath.
    pub const fn inner(&self) -> &S {
        &self.0
    }
}

// SAFETY: the lock's.
unsafe impl<P: Platform, S: SleepLock> Kind<P> for Sleeping<P, S> {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(S::INIT, PhantomData);
    const SLEEPS: bool = true;

    #[inline]
    fn enter<F: Form>() {
        if F::KIND == FormKind::Bh {
            P::preempt_add(SOFTIRQ_DISABLE_OFFSET);
        }
        P::migrate_disable();
    }

    #[inline]
    unsafe fn exit<F: Form>() {
        // SAFETY: the caller's.
        unsafe { P::migrate_enable() };
        if F::KIND == FormKind::Bh {
            // SAFETY: the caller's.
            unsafe { local::bh_enable_in_place::<P>() };
        }
    }

    #[inline]
    fn acquire(&self) -> Result<(), Problem> {
        self.0.acquire()
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.0.try_acquire()
    }

    #[inline]
    unsafe fn release(&self) -> Result<(), Problem> {
        // SAFETY: the caller owns the lock.
        unsafe { self.0.release() }
    }

    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn is_contended(&self) -> bool {
        self.0.is_contended()
    }
}
