//! A full barrier for other processes: `membarrier(2)`.
//!
//! With it the release of a robust lock is a store: who must not miss it makes all others pass a barrier. That holds
//! only for processes that have registered; the child of a fork inherits it.

use crosslock_core::primitive::{Ordering, fence};
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

/// How the robust locks of a segment are released: the same for all who attach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// By a store. Who is about to sleep makes all other processes pass a barrier (`membarrier`), which costs the
    /// sleeper microseconds, and disturbs every CPU on which a registered process runs.
    Store,
    /// By an exchange: some nanoseconds more for each release, nothing for others.
    Exchange,
}

impl Release {
    /// By a store where the kernel has the barrier.
    pub(crate) fn best() -> Self {
        let query = membarrier_query();
        let has = |command| query.contains_command(command);
        if has(MembarrierCommand::GlobalExpedited) && has(MembarrierCommand::RegisterGlobalExpedited) {
            Self::Store
        } else {
            Self::Exchange
        }
    }
}

/// Lets this process take part in the barriers of others.
pub(crate) fn register() -> std::io::Result<()> {
    Ok(membarrier(MembarrierCommand::RegisterGlobalExpedited)?)
}

/// A full barrier, for all registered processes too if `everybody`.
pub(crate) fn full(everybody: bool) {
    if everybody && membarrier(MembarrierCommand::GlobalExpedited).is_ok() {
        return;
    }
    // Who has registered is not refused.
    fence(Ordering::SeqCst);
}
