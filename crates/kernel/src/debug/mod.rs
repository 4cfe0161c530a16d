//! The checks of the feature `debug-checks`, and what stands in their place without it.
//!
//! With it a lock grows, as Linux's does under `CONFIG_DEBUG_SPINLOCK`: a kernel's locks are shared with nobody who
//! was built otherwise, and features are the same for all crates of one build. What is shared with others,
//! the arch lock inside, stays the same.

#[cfg(not(feature = "debug-checks"))]
mod off;
#[cfg(feature = "debug-checks")]
mod on;
#[cfg(feature = "debug-checks")]
mod site;

#[cfg(not(feature = "debug-checks"))]
pub(crate) use off::{HeldLocks, LockDebug};
#[cfg(feature = "debug-checks")]
pub(crate) use on::{HeldLocks, LockDebug};

use crate::hooks::Operation;
use crate::platform::Platform;

/// The checks around one lock: `operation.lock` is it.
pub(crate) trait Checks {
    /// Before the caller waits, or tries: it is noted as one who holds the lock, or is about to.
    fn before_lock<P: Platform>(&self, operation: &Operation);

    /// The attempt failed.
    fn not_locked<P: Platform>(&self, operation: &Operation);

    /// The caller owns the lock.
    fn locked<P: Platform>(&self, operation: &Operation);

    /// Before the lock is given up.
    fn before_unlock<P: Platform>(&self, operation: &Operation);

    /// After that.
    fn unlocked<P: Platform>(&self, operation: &Operation);
}
