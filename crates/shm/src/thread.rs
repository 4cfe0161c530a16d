//! The locks for the threads of one process: every thread is a CPU.
//!
//! ```
//! use crosslock::RawQSpin;
//!
//! static HITS: lock_api::Mutex<RawQSpin, u64> = lock_api::Mutex::new(0);
//! std::thread::scope(|scope| {
//!     for _ in 0..4 {
//!         scope.spawn(|| *HITS.lock() += 1);
//!     }
//! });
//! assert_eq!(*HITS.lock(), 4);
//! ```

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{Api, ConstContext, Context, CpuId, HashEntry, LockKey, NoHooks, PerCpu, PvOps};
use rustix::thread::futex;

use crate::futex::{kick, spin_turns, wait};

/// Threads that can have a place in a queue at once. One more than that waits without.
const THREADS: usize = 1024;

const THREADS_PER_WORD: usize = u64::BITS as usize;

static PER_CPU: [PerCpu; THREADS] = [const { PerCpu::new() }; THREADS];
static HASH: [HashEntry; 4 * THREADS] = [const { HashEntry::new() }; 4 * THREADS];
static IN_USE: [AtomicU64; THREADS / THREADS_PER_WORD] =
    [const { AtomicU64::new(0) }; THREADS / THREADS_PER_WORD];

/// A thread's number, taken at its first wait, given back at its end.
#[derive(Debug)]
struct Number(Option<CpuId>);

impl Number {
    fn take() -> Self {
        for (index, word) in IN_USE.iter().enumerate() {
            loop {
                let bit = word.load(Ordering::Relaxed).trailing_ones();
                if bit == u64::BITS {
                    break;
                }
                // Acquire: pairs with the Release in `drop`; the nodes are as their last user left them.
                if word.fetch_or(1 << bit, Ordering::Acquire) & 1 << bit == 0 {
                    return Self(CpuId::new(index * THREADS_PER_WORD + bit as usize));
                }
            }
        }
        Self(None)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(cpu) = self.0 {
            let bit = 1 << (cpu.index() % THREADS_PER_WORD);
            IN_USE[cpu.index() / THREADS_PER_WORD].fetch_and(!bit, Ordering::Release);
        }
    }
}

thread_local! {
    static NUMBER: Number = Number::take();
}

/// The running thread, as a CPU among the threads of its process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadContext;

impl ConstContext for ThreadContext {
    const CONTEXT: Self = Self;
}

// SAFETY: a number is taken by one thread, kept until it ends, and the table is written by locks only.
unsafe impl Context for ThreadContext {
    /// `None` beyond 1024 threads that wait at once, and in the last moments of a thread.
    fn cpu(&self) -> Option<CpuId> {
        NUMBER.try_with(|number| number.0).ok().flatten()
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &PER_CPU
    }
}

impl PvOps for ThreadContext {
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32) {
        if let Some(me) = self.cpu() {
            wait(PER_CPU[me.index()].kicks(), futex::Flags::PRIVATE, word, mask, value);
        }
    }

    fn pv_kick(&self, cpu: CpuId) {
        if let Some(other) = PER_CPU.get(cpu.index()) {
            kick(other.kicks(), futex::Flags::PRIVATE);
        }
    }

    fn spin_threshold(&self) -> u32 {
        spin_turns()
    }

    fn pv_hash(&self) -> &[HashEntry] {
        &HASH
    }

    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }
}

/// Test-and-set lock for [`lock_api::Mutex`].
pub type RawTas = Api<crosslock_core::RawTas, ThreadContext, NoHooks>;
/// Ticket lock for [`lock_api::Mutex`].
pub type RawTicket = Api<crosslock_core::RawTicket, ThreadContext, NoHooks>;
/// MCS queue lock for [`lock_api::Mutex`].
pub type RawMcs = Api<crosslock_core::RawMcs, ThreadContext, NoHooks>;
/// Queued spin lock for [`lock_api::Mutex`].
pub type RawQSpin = Api<crosslock_core::RawQSpin, ThreadContext, NoHooks>;
/// Paravirtual queued spin lock for [`lock_api::Mutex`]: waiters sleep after a while.
pub type RawPvQSpin = Api<crosslock_core::RawPvQSpin, ThreadContext, NoHooks>;

#[cfg(test)]
mod tests {
    use super::*;

    fn hammer<R: lock_api::RawMutex + Sync>() {
        let counter = lock_api::Mutex::<R, u64>::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| *counter.lock() += 1));
            }
        });
        assert_eq!(*counter.lock(), 4000);
    }

    #[test]
    fn every_lock_works_through_lock_api() {
        hammer::<RawTas>();
        hammer::<RawTicket>();
        hammer::<RawMcs>();
        hammer::<RawQSpin>();
        hammer::<RawPvQSpin>();
    }

    #[test]
    fn a_thread_gives_its_number_back() {
        let number = || std::thread::spawn(|| ThreadContext.cpu()).join().unwrap().unwrap();
        let seen: std::collections::HashSet<_> = (0..2 * THREADS).map(|_| number()).collect();
        assert!(seen.len() < THREADS, "{} numbers used", seen.len());
    }
}
