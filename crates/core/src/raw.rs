//! The trait that all lock algorithms share.

use core::fmt;

use crate::error::Corrupted;

/// What a lock is, whoever uses it.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)` over atomics only, at most 128 bytes, aligned to 4 or 8, the
/// same on every architecture; all bytes zero is a free lock.
pub unsafe trait LockType: Default + Sync {
    /// What the lock is called in commands, segments and reports.
    const NAME: &'static str;

    /// Whether somebody holds the lock, or waits for it; old news when it arrives.
    fn is_locked(&self) -> bool;

    /// Says what the first 32 bits of such a lock mean, whatever they are.
    ///
    /// # Errors
    /// Those of the formatter.
    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A mutual-exclusion algorithm over plain words in shared memory, without data and without a guard.
///
/// `C` is the [`Context`](crate::Context) that it runs in: most locks want only that, the paravirtual one
/// wants [`PvOps`](crate::PvOps).
///
/// # Safety
/// At most one caller is between a successful `acquire` or `try_acquire` and its `release`, whatever the
/// threads, processes and machines they run on; and all that one wrote before its `release` is seen by
/// the next one after its `acquire`.
pub unsafe trait RawLock<C>: LockType {
    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// [`Corrupted`] where the memory of the lock holds what no correct user writes. The caller does not
    /// own the lock then, and nobody may get it any more: the lock is to be given up.
    fn acquire(&self, cx: &C) -> Result<(), Corrupted>;

    /// Takes the lock if it is free now; never waits.
    fn try_acquire(&self, cx: &C) -> bool;

    /// Gives the lock up.
    ///
    /// # Errors
    /// [`Corrupted`] where the memory of the lock holds what no correct user writes. Whether somebody
    /// else can take the lock then is not known.
    ///
    /// # Safety
    /// The caller owns the lock by an `acquire` or `try_acquire` on the same CPU.
    unsafe fn release(&self, cx: &C) -> Result<(), Corrupted>;
}
