//! The context in which the locks of a segment run.

use core::time::Duration;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{Context, CpuId, Event, HashEntry, LockKey, PerCpu, PvOps};
use rustix::time::{ClockId, clock_gettime};

use crate::alive::SHARED;
use crate::futex::{MAX_SLEEP, spin_turns, timespec, wait_until, wake};
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
            let kicks = self.per_cpu()[me.index()].kicks();
            let before = kicks.load(Ordering::Relaxed);
            let longest = if self.is_served() { MAX_SLEEP } else { MAX_BLIND_SLEEP };
            let is_over = || word.load(Ordering::Relaxed) & mask != value;
            let woken = self.sleep_on_bell(me, longest, is_over).unwrap_or_else(|| {
                wait_until(self.bell(me, kicks), SHARED, word, mask, value, &timespec(longest))
            });
            if !woken && kicks.load(Ordering::Relaxed) != before {
                self.count(Event::PvKickLate, 1);
            }
        }
    }

    fn pv_kick(&self, cpu: CpuId) {
        if let Some(other) = self.per_cpu().get(cpu.index()) {
            other.kicks().fetch_add(1, Ordering::Release);
            self.wake(cpu, other.kicks());
        }
    }

    fn spin_threshold(&self) -> u32 {
        spin_turns()
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

/// The longest sleep of one whom others cannot wake.
const MAX_BLIND_SLEEP: Duration = Duration::from_millis(1);

impl SegmentContext {
    /// The word that changes when `slot`, of this domain, is woken: its count of kicks, where the kernel can sleep on that.
    pub(crate) fn bell<'a>(&'a self, slot: CpuId, kicks: &'a AtomicU32) -> &'a AtomicU32 {
        self.home().map_or(kicks, |home| home.bell(self.index(slot)))
    }

    /// Ends the sleep of `slot`, whose kicks have been counted.
    pub(crate) fn wake(&self, slot: CpuId, kicks: &AtomicU32) {
        if self.geometry().domains == 1 {
            wake(kicks, SHARED);
        } else if !self.is_near(slot) {
            self.wake_far(slot, self.vector_of(slot));
        } else if !self.wake_here(slot, kicks) {
            self.have_woken(slot);
        }
    }

    /// The same for one of this domain; gives `false` where this process does not have the bell that it sleeps on.
    fn wake_here(&self, slot: CpuId, kicks: &AtomicU32) -> bool {
        let vector = self.vector_of(slot);
        if vector != 0 && self.ring_bell(vector) {
            return true;
        }
        let bell = self.bell(slot, kicks);
        if self.home().is_some() {
            bell.fetch_add(1, Ordering::Release);
        }
        wake(bell, SHARED);
        vector == 0
    }

    /// Ends the sleep of `slot`, of this domain, whatever its thread waits for. For its agent, who has all bells.
    pub(crate) fn wake_near(&self, slot: CpuId) {
        let (seat, per_cpu) = (&self.seat_table()[slot.index()], &self.per_cpu_table()[slot.index()]);
        self.wake_here(slot, seat.kicks());
        if self.home().is_none() {
            wake(per_cpu.kicks(), SHARED);
        }
    }

    /// Whether whoever kicks a thread of this domain can wake it.
    pub(crate) fn is_served(&self) -> bool {
        self.geometry().domains == 1 || self.agent_of(self.domain()).is_some()
    }

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
