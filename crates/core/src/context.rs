//! What a lock needs to know about the place where it runs.

use crate::event::Event;
use crate::lock_hash::{HashEntry, LockKey};
use crate::per_cpu::{CpuId, PerCpu};
use crate::primitive::{self, AtomicU32};

/// The running CPU, as the locks see it: who it is, where everybody's nodes are, how it spins.
///
/// Only slow paths ask.
///
/// # Safety
/// No two that run at once give the same [`Context::cpu`], and it stays the same until the lock call that asked
/// for it returns. All users of a lock give the same [`Context::per_cpu`] memory, mapped anywhere, and
/// nobody but the locks writes it.
pub unsafe trait Context {
    /// The number of the CPU that this code runs on; `None` if it has none, then it waits without a place in
    /// the queue.
    fn cpu(&self) -> Option<CpuId>;

    /// The nodes of all CPUs.
    fn per_cpu(&self) -> &[PerCpu];

    /// One turn of a spin loop.
    #[inline]
    fn relax(&self) {
        primitive::spin_hint();
    }

    /// Counts `amount` of `event`. Free where not overridden.
    #[inline]
    fn count(&self, event: Event, amount: u64) {
        let _ = (event, amount);
    }
}

/// Waiting without burning the CPU: what a paravirtual lock asks of its hypervisor, or of the scheduler.
///
/// The names are those of the Linux kernel (`pv_wait`, `pv_kick`, `vcpu_is_preempted`). Nothing here can break
/// mutual exclusion; a wait that misses its kick can stop progress.
pub trait PvOps: Context {
    /// Suspends this CPU while `word & mask == value`, until it is kicked.
    ///
    /// May return early for any reason. A kick that its sender makes after changing the word must end the
    /// wait, or prevent it, even if it comes between the look at the word and the sleep.
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32);

    /// Ends the `pv_wait` that `cpu` is in or about to enter; costs nothing but time if it is in none.
    fn pv_kick(&self, cpu: CpuId);

    /// The hash that maps a lock to the sleeping head of its queue: a power of two of entries, at least
    /// four for each CPU.
    fn pv_hash(&self) -> &[HashEntry];

    /// The name of a lock in the hash: the same for all users of the lock, another for every other.
    fn lock_key(&self, word: &AtomicU32) -> LockKey;

    /// Whether `cpu` is running now, as far as the hypervisor tells; a waiter whose predecessor is not
    /// sleeps early.
    #[inline]
    fn is_running(&self, cpu: CpuId) -> bool {
        let _ = cpu;
        true
    }

    /// Turns of the spin loop before a waiter sleeps.
    #[inline]
    fn spin_threshold(&self) -> u32 {
        1 << 15
    }

    /// A clock for the latency counters, in nanoseconds; 0 where there is none.
    #[inline]
    fn clock_ns(&self) -> u64 {
        0
    }
}
