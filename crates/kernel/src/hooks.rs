//! Points around every lock operation, with what a validator wants to know.
//!
//! [`LockHooks`] is [`crosslock_core::Hooks`] for kernels: the same five points in the same order, and besides the
//! address and the place, how the lock is taken. Any [`Hooks`] can be used where a [`LockHooks`] is wanted.

use core::panic::Location;

use crosslock_core::{ConstContext, Hooks};

use crate::form::FormKind;

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// One alone.
    Exclusive,
    /// Readers among themselves.
    Shared,
}

/// One operation on a lock.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// Names the lock: an address inside it, the same for all of its operations.
    pub lock: usize,
    /// Where the lock was made, which serves as its class; known with the feature `debug-checks`.
    pub made_at: Option<&'static Location<'static>>,
    /// The caller's place; where a guard is dropped, which has no caller, that of the guard's own code.
    pub at: &'static Location<'static>,
    /// Alone or shared.
    pub access: Access,
    /// The nesting level that the caller gave, 0 mostly.
    pub subclass: u8,
    /// The attempt does not wait.
    pub is_try: bool,
    /// What is disabled while the lock is held.
    pub form: FormKind,
    /// A waiter may sleep.
    pub sleeps: bool,
}

/// Told of every lock operation. They must not panic.
pub trait LockHooks: 'static {
    /// Whether to call the others at all: `false` removes them, and the places, from the code.
    const ENABLED: bool = true;

    /// The caller is about to take the lock; an attempt tells only of success.
    fn acquire(operation: &Operation) {
        let _ = operation;
    }

    /// The lock is not free: the caller is about to wait.
    fn contended(operation: &Operation) {
        let _ = operation;
    }

    /// The caller owns the lock.
    fn acquired(operation: &Operation) {
        let _ = operation;
    }

    /// The lock cannot be had: what [`LockHooks::acquire`] announced does not come.
    fn abandoned(operation: &Operation) {
        let _ = operation;
    }

    /// The caller is about to give the lock up.
    fn release(operation: &Operation) {
        let _ = operation;
    }
}

impl<H: Hooks + ConstContext + 'static> LockHooks for H {
    const ENABLED: bool = H::ENABLED;

    fn acquire(operation: &Operation) {
        H::CONTEXT.acquire(operation.lock, operation.at, operation.is_try);
    }

    fn contended(operation: &Operation) {
        H::CONTEXT.contended(operation.lock, operation.at);
    }

    fn acquired(operation: &Operation) {
        H::CONTEXT.acquired(operation.lock, operation.at);
    }

    fn abandoned(operation: &Operation) {
        H::CONTEXT.abandoned(operation.lock, operation.at);
    }

    fn release(operation: &Operation) {
        H::CONTEXT.release(operation.lock, operation.at);
    }
}
