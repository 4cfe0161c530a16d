//! The context in which the locks of a segment run.

use crosslock_core::primitive::AtomicU32;
use crosslock_core::{Context, CpuId, Event, HashEntry, LockKey, PerCpu, PvOps};
use rustix::time::{ClockId, clock_gettime};

use crate::alive::SHARED;
use crate::futex::{SPIN_TURNS, kick, wait};
use crate::segment::SegmentContext;

// SAFETY: a slot is leased to one thread until it ends; the table is one for all who map the segment. A hostile
// peer may write it: it can break exclusion anyway, by writing the word.
unsafe impl Context for SegmentContext {
    /// `None` where all slots are taken, where the segment is read-only, and in the last moments of a thread.
    fn cpu(&self) -> Option<CpuId> {
        self.slot_or_register()
    }

    fn per_cpu(&self) -> &[PerCpu] {
        self.per_cpu_table()
    }

    fn count(&self, event: Event, amount: u64) {
        self.add_to_counter(event, amount);
    }
}

impl PvOps for SegmentContext {
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32) {
        if let Some(me) = self.slot() {
            wait(self.per_cpu()[me.index()].kicks(), SHARED, word, mask, value);
        }
    }

    fn pv_kick(&self, cpu: CpuId) {
        if let Some(other) = self.per_cpu().get(cpu.index()) {
            kick(other.kicks(), SHARED);
        }
    }

    fn spin_threshold(&self) -> u32 {
        SPIN_TURNS
    }

    fn pv_hash(&self) -> &[HashEntry] {
        self.hash_table()
    }

    /// The offset of the lock in the segment, plus 1.
    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        self.key_at(core::ptr::from_ref(word).addr())
    }

    fn clock_ns(&self) -> u64 {
        monotonic_ns()
    }
}

impl SegmentContext {
    pub(crate) fn key_at(&self, address: usize) -> LockKey {
        let offset = self.mapping().offset_of(address);
        // Only an address just below the mapping, where no word can be, would give 0.
        LockKey::new((offset as u64).wrapping_add(1)).unwrap_or(NO_LOCK)
    }
}

/// The key of no lock.
const NO_LOCK: LockKey = match LockKey::new(u64::MAX) {
    Some(key) => key,
    None => unreachable!(),
};

pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs())
}
