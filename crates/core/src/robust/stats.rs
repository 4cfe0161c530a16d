//! What has happened to a robust lock: for people; what must be right does not depend on it.

use super::{RawRobust, RobustOps};
use crate::primitive::{AtomicU64, Ordering, const_new};

/// What has happened to a lock. All but `acquisitions` is told by those who had to wait.
#[repr(C)]
#[derive(Default)]
pub(super) struct Stats {
    acquisitions: AtomicU64,
    contended: AtomicU64,
    waited_ns: AtomicU64,
    /// Which acquisition `seen_ns` is about.
    seen: AtomicU64,
    /// When somebody first noticed that acquisition.
    seen_ns: AtomicU64,
}

/// Figures of one lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RobustStats {
    /// How often it has been taken.
    pub acquisitions: u64,
    /// How often somebody had to wait for it, and then got it.
    pub contended: u64,
    /// How long they waited, all together, in nanoseconds.
    pub waited_ns: u64,
    /// On the clock of the platform: the present owner has had it at least since then. `None` where nobody noticed.
    pub held_since_ns: Option<u64>,
}

impl Stats {
    const_new! { pub(super) fn new() -> Self {
        Self {
            acquisitions: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            seen_ns: AtomicU64::new(0),
        }
    } }
}

impl RawRobust {
    /// What has happened to the lock.
    pub fn stats(&self) -> RobustStats {
        let Stats { acquisitions, contended, waited_ns, seen, seen_ns } = &self.stats;
        let acquisitions = acquisitions.load(Ordering::Relaxed);
        let seen = seen.load(Ordering::Relaxed) == acquisitions;
        RobustStats {
            acquisitions,
            contended: contended.load(Ordering::Relaxed),
            waited_ns: waited_ns.load(Ordering::Relaxed),
            held_since_ns: seen.then(|| seen_ns.load(Ordering::Relaxed)),
        }
    }

    /// By the owner alone.
    #[inline]
    pub(super) fn count_acquisition(&self) {
        if cfg!(any(loom, shuttle)) {
            // No decision depends on statistics, and each would multiply the states of a model.
            return;
        }
        let count = &self.stats.acquisitions;
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How often the lock has been taken.
    #[inline]
    pub(super) fn acquisitions(&self) -> u64 {
        self.stats.acquisitions.load(Ordering::Relaxed)
    }

    /// By the owner, who has waited since then.
    pub(super) fn count_wait<C: RobustOps>(&self, cx: &C, since_ns: u64) {
        if cfg!(any(loom, shuttle)) {
            return;
        }
        let (stats, now) = (&self.stats, cx.now_ns());
        let add = |counter: &AtomicU64, amount| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        };
        add(&stats.contended, 1);
        add(&stats.waited_ns, now.saturating_sub(since_ns));
        self.notice_owner(now);
    }

    /// Notes when the present acquisition was first noticed.
    pub(super) fn notice_owner(&self, now_ns: u64) {
        if cfg!(any(loom, shuttle)) {
            return;
        }
        let (stats, count) = (&self.stats, self.stats.acquisitions.load(Ordering::Relaxed));
        if stats.seen.load(Ordering::Relaxed) != count {
            stats.seen_ns.store(now_ns, Ordering::Relaxed);
            stats.seen.store(count, Ordering::Relaxed);
        }
    }
}
