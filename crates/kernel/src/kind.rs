//! How a lock waits, and the way into it and out of it that all kinds share.

use core::marker::PhantomData;

use crate::debug::{Checks, LockDebug};
use crate::form::Form;
use crate::hooks::{LockHooks, Operation};
use crate::marker::Names;
use crate::platform::Platform;
use crate::report::{Problem, Report, Severity, fail};

/// How a lock waits, and what it disables while it is held: [`Spinning`](crate::Spinning) or
/// [`Sleeping`](crate::Sleeping).
///
/// # Safety
/// As [`ArchSpinLock`](crate::ArchSpinLock).
pub unsafe trait Kind<P: Platform>: Sync {
    /// A free lock.
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value, copied wherever it is named")]
    const INIT: Self;

    /// Whether a waiter may sleep.
    const SLEEPS: bool;

    /// Whether it knows that it is held.
    const KNOWS: bool = true;

    /// Disables what the form `F` disables for this kind.
    #[track_caller]
    fn enter<F: Form>();

    /// Takes that back.
    ///
    /// # Safety
    /// Takes back one `enter` of the same form, on its CPU.
    unsafe fn exit<F: Form>();

    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// What keeps the caller from ever having it; or a [`Problem::severity`] of `Warning`: then it has it.
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

/// What the form has disabled; enabled again where the lock is not had.
pub(crate) struct Entered<P: Platform, K: Kind<P>, F: Form>(Names<(P, K, F)>);

impl<P: Platform, K: Kind<P>, F: Form> Entered<P, K, F> {
    #[inline]
    #[track_caller]
    pub(crate) fn new() -> Self {
        K::enter::<F>();
        Self(PhantomData)
    }

    /// It stays disabled.
    #[inline]
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl<P: Platform, K: Kind<P>, F: Form> Drop for Entered<P, K, F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `new` entered, on this CPU: a value of this type is not kept.
        unsafe { K::exit::<F>() };
    }
}

/// Reports; panics unless the lock is the caller's all the same. Takes the operation by value: where it is not used
/// otherwise, it is not made before this.
#[cold]
#[inline(never)]
pub(crate) fn refused<P: Platform>(problem: Problem, operation: Operation, debug: &LockDebug) {
    if problem.severity() == Severity::Fatal {
        debug.not_locked::<P>(&operation);
        if P::Hooks::ENABLED {
            P::Hooks::abandoned(&operation);
        }
    }
    fail::<P>(&Report {
        lock: Some(operation.lock),
        made_at: operation.made_at,
        ..Report::of(problem, operation.at)
    });
}
