//! What robust locks ask of a segment: names, deaths, sleep.

use core::time::Duration;

use arrayvec::ArrayVec;
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, Event, LockKey, Name, PvOps, RobustOps, Seat};
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::ClockId;

use crate::alive::{SHARED, wake_all};
use crate::barrier;
use crate::futex::timespec;
use crate::segment::SegmentContext;

/// Longest sleep. Deaths and kicks end it; this is for a kicker that is stopped between its word and its kick.
const MAX_SLEEP: Duration = Duration::from_millis(50);

/// Longest sleep where the kernel cannot wait for two words: deaths are looked for so often.
const MAX_BLIND_SLEEP: Duration = Duration::from_millis(1);

/// `futex_waitv`, since Linux 5.16.
mod waitv {
    use super::{AtomicU32, Ordering};

    const UNKNOWN: u32 = 0;
    const AVAILABLE: u32 = 1;
    const MISSING: u32 = 2;

    static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);

    /// Whether it is there as far as is known, and not switched off by `CROSSLOCK_NO_FUTEX_WAITV`.
    pub(super) fn is_available() -> bool {
        match STATE.load(Ordering::Relaxed) {
            UNKNOWN => {
                let off = std::env::var_os("CROSSLOCK_NO_FUTEX_WAITV").is_some();
                STATE.store(if off { MISSING } else { AVAILABLE }, Ordering::Relaxed);
                !off
            }
            state => state == AVAILABLE,
        }
    }

    pub(super) fn is_missing() {
        STATE.store(MISSING, Ordering::Relaxed);
    }
}

// SAFETY: a name is dead only when its thread has said so as its last deed, or when the kernel has; all who map the
// segment see the same table of seats. A hostile peer can pretend a death: it can break exclusion anyway, by
// writing the word.
unsafe impl RobustOps for SegmentContext {
    #[inline]
    fn seats(&self) -> &[Seat] {
        // Acquire: who knows of a participant knows that its slot is below.
        let high = self.high().load(Ordering::Acquire) as usize;
        let seats = self.seat_table();
        &seats[..high.min(seats.len())]
    }

    #[inline]
    fn name_of(&self, slot: CpuId) -> Option<Name> {
        self.holder_of(slot)
    }

    #[inline]
    fn is_dead(&self, name: Name) -> bool {
        self.has_died(name)
    }

    fn sleep(&self, me: Name, seen: u32, watched: Name, until_ns: u64) {
        let Some(seat) = self.seat_table().get(me.slot().index()) else { return };
        let bell = self.bell(me.slot(), seat.kicks());
        let rung = bell.load(Ordering::Acquire);
        let alive = self.alive_word(watched.slot()).filter(|_| self.can_sleep_on_death(watched.slot()));
        let value = alive.map_or(0, |word| word.load(Ordering::Acquire));
        // After the reading of the words: if the alive word was another's, then `watched` is dead.
        let is_over = || seat.kicks().load(Ordering::Acquire) != seen || self.has_died(watched);
        if is_over() {
            return;
        }
        let rung = if self.home().is_some() { rung } else { seen };
        let limit = if self.is_served() { MAX_SLEEP } else { MAX_BLIND_SLEEP };
        let longest = limit.min(Duration::from_nanos(until_ns.saturating_sub(self.now_ns())));
        let woken = self.sleep_on_bell(me.slot(), longest, is_over).unwrap_or_else(|| {
            let words = [Some((bell, rung)), alive.map(|word| (word, value)), self.agents_word()];
            let words: ArrayVec<_, 3> = words.into_iter().flatten().collect();
            wait_for_words(&words, longest)
        });
        // Not a nap that the sleeper wanted to be shorter than any limit here.
        if !woken && longest >= MAX_BLIND_SLEEP && seat.kicks().load(Ordering::Relaxed) != seen {
            self.count(Event::PvKickLate, 1);
        }
        if let Some(alive) = alive.filter(|_| self.has_died(watched)) {
            // The kernel has woken one, this thread perhaps.
            wake_all(alive);
        } else if !woken {
            // Should it fail, it is tried again after the next sleep.
            let _ = self.bury(watched);
        }
    }

    fn kick(&self, slot: CpuId) {
        if let Some(seat) = self.seat_table().get(slot.index()) {
            // Release: pairs with the Acquire of the sleeper.
            seat.kicks().fetch_add(1, Ordering::Release);
            self.wake(slot, seat.kicks());
        }
    }

    /// The offset of the lock in the segment, plus 1.
    #[inline]
    fn lock_key(&self, word: &AtomicU64) -> LockKey {
        self.key_at(core::ptr::from_ref(word).addr())
    }

    fn now_ns(&self) -> u64 {
        self.clock_ns()
    }

    #[inline]
    fn has_heavy_barrier(&self) -> bool {
        self.is_released_by_store()
    }

    fn yield_now(&self) {
        rustix::thread::sched_yield();
    }

    fn heavy_barrier(&self) {
        barrier::full(self.is_released_by_store());
    }

    fn count(&self, event: Event, amount: u64) {
        self.add_to_counter(event, amount);
    }
}

impl SegmentContext {
    /// Whether the kernel can wake this domain's threads at the death of who is in `slot`: its alive word lies in ordinary
    /// memory.
    fn can_sleep_on_death(&self, slot: CpuId) -> bool {
        self.home().is_none() || self.is_near(slot)
    }

    /// The alive word of who stands for this domain: without it nobody is woken from afar.
    fn agents_word(&self) -> Option<(&AtomicU32, u32)> {
        let agent = self.agent_of(self.domain()).filter(|_| self.geometry().domains > 1)?;
        let word = self.alive_word(agent.slot())?;
        let value = word.load(Ordering::Acquire);
        (!self.has_died(agent)).then_some((word, value))
    }

    /// What [`RobustOps::now_ns`] shows when `timeout` is over.
    pub(crate) fn deadline_ns(&self, timeout: Duration) -> u64 {
        self.clock_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Sleeps until one of the words has another value, or for so long; gives `false` if nothing happened in that time. Whatever ends the
/// sleep, the caller looks again. Where the kernel waits for one word only that is the first, and the sleep short.
pub(crate) fn wait_for_words(words: &[(&AtomicU32, u32)], longest: Duration) -> bool {
    if !waitv::is_available() {
        let longest = timespec(longest.min(MAX_BLIND_SLEEP));
        let wait =
            |&(word, value): &(&AtomicU32, u32)| futex::wait(word.as_core(), SHARED, value, Some(&longest));
        return words.first().map(wait) != Some(Err(Errno::TIMEDOUT));
    }
    let waits: ArrayVec<_, WAIT_WORDS> = words.iter().take(WAIT_WORDS).map(wait).collect();
    let deadline = timespec(Duration::from_nanos(crate::context::monotonic_ns()) + longest);
    let woken = futex::waitv(&waits, futex::WaitvFlags::empty(), Some(&deadline), ClockId::Monotonic);
    // EPERM: a container that has not heard of the call.
    if matches!(woken, Err(Errno::NOSYS | Errno::PERM)) {
        waitv::is_missing();
    }
    woken != Err(Errno::TIMEDOUT)
}

/// Words that the kernel waits for at once, at most.
pub(crate) const WAIT_WORDS: usize = 128;

fn wait(&(word, value): &(&AtomicU32, u32)) -> futex::Wait {
    let mut wait = futex::Wait::new();
    wait.val = value.into();
    wait.uaddr = core::ptr::from_ref(word).cast_mut().cast::<core::ffi::c_void>().into();
    wait.flags = futex::WaitFlags::SIZE_U32;
    wait
}
