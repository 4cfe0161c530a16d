//! Participants: the threads that have used locks in a segment, each in a slot of its own.
//!
//! ```text
//!   state      31                     1   0
//!             +------------------------+------+
//!             |      incarnation       | used |
//!             +------------------------+------+
//!
//!   register   (registry lock)  nobody there?  lease free?  take lease;  not used;  clear seat;  alive word;
//!                               describe;  state = incarnation + 1, used
//!   leave      state = not used;  alive word says so;  give lease up (see `place`)
//!   death      the alive word says so;  lease free
//! ```
//! Slot and incarnation are a participant's *name*. It is dead when the state is not that of the name, or the alive
//! word says so; nobody else gets the name. Nobody gets the slot before the lease is free, too.
//!
//! There are deaths of which the kernel says nothing in the word: an `exec` by another thread than the first, or memory
//! that it cannot bring in any more. They end the process, and its leases: who has waited
//! for some time asks for those.
//!
//! Only the holder of a slot's lease writes its record. A slot whose thread died in a queue of a spin lock (`depth`
//! is not 0) is *wedged*: other waiters may still point at its nodes, so it is not given to anybody.
//!
//! The counters of a slot only grow, whoever has it: their sum over all slots is that of the segment.

use core::mem::offset_of;
use std::os::fd::AsFd;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, Event, Name};
use rustix::time::{ClockId, clock_gettime};

use crate::alive::AliveWord;
use crate::description::generation;
use crate::error::{Error, Result};
use crate::lease::{Lease, Mode};
use crate::mapping::SharedLayout;
use crate::place::Tenancy;
use crate::registry::Registry;
use crate::segment::SegmentContext;
use crate::text::Text;

/// Room for counters in each record, more than there are events.
pub(crate) const COUNTERS: u32 = 48;

const USED: u32 = 1;
const INCARNATION_SHIFT: u32 = 1;

/// One slot, as it lies in the segment. All but `state`, `alive_offset` and `counters` is for people.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) state: AtomicU32,
    pub(crate) pid: AtomicU32,
    pub(crate) tid: AtomicU32,
    /// Where in the slot's page its alive word lies.
    pub(crate) alive_offset: AtomicU32,
    /// Nanoseconds since the Unix epoch.
    pub(crate) registered_ns: AtomicU64,
    pub(crate) name: [AtomicU64; 3],
    /// By which vector of its domain's doorbell its thread is woken; 0: by its agent.
    pub(crate) vector: AtomicU32,
    reserved: AtomicU32,
    reserved2: AtomicU64,
    pub(crate) counters: [AtomicU64; COUNTERS as usize],
}

const _: () = {
    assert!(Event::COUNT <= COUNTERS as usize);
    assert!(offset_of!(Record, pid) == 4);
    assert!(offset_of!(Record, tid) == 8);
    assert!(offset_of!(Record, alive_offset) == 12);
    assert!(offset_of!(Record, registered_ns) == 16);
    assert!(offset_of!(Record, name) == 24);
    assert!(offset_of!(Record, vector) == 48);
    assert!(offset_of!(Record, counters) == 64);
    assert!(size_of::<Record>() == 448 && align_of::<Record>() == 64);
};

// SAFETY: made of atomics.
unsafe impl SharedLayout for Record {}

/// Whether a state word says that somebody is registered.
pub(crate) const fn is_used(state: u32) -> bool {
    state & USED != 0
}

/// How often the slot has been given to somebody.
pub(crate) const fn incarnation(state: u32) -> u32 {
    state >> INCARNATION_SHIFT
}

/// The last of a slot: there is no name after it.
const MAX_INCARNATION: u32 = u32::MAX >> INCARNATION_SHIFT;

/// Who is in `slot` if its state word is `state`.
pub(crate) const fn name(slot: CpuId, state: u32) -> Option<Name> {
    if is_used(state) { Some(Name::new(slot, incarnation(state))) } else { None }
}

/// The state word of a slot with that incarnation in it, if there can be one.
pub(crate) const fn used_state(incarnation: u32) -> Option<u32> {
    if incarnation <= MAX_INCARNATION { Some(incarnation << INCARNATION_SHIFT | USED) } else { None }
}

impl Record {
    fn describe_this_thread(&self) {
        let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let now = clock_gettime(ClockId::Realtime);
        let (seconds, ns) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
        self.registered_ns.store(seconds.wrapping_mul(1_000_000_000).wrapping_add(ns), Ordering::Relaxed);
        let thread = std::thread::current();
        Text::truncated(thread.name().unwrap_or_default()).store(&self.name);
    }
}

impl SegmentContext {
    /// Makes the running thread the participant of some slot.
    pub(crate) fn take_slot(&self) -> Result<Tenancy> {
        let registry = Registry::lock(self)?;
        let slots = || self.slots_of(self.domain());
        let used = |slot: &CpuId| is_used(self.records()[slot.index()].state.load(Ordering::Acquire));
        // Those of the dead are used last: they tell more to who looks.
        for slot in slots().filter(|slot| !used(slot)).chain(slots().filter(used)) {
            if self.is_vacant(slot) && !registry.is_leased(slot)? && self.lease(slot)? {
                return self.claim(&registry, slot).inspect_err(|_| {
                    // Should it fail, the slot stays leased until the process ends.
                    let _ = Lease::Participant(slot).unlock(self.description().as_fd());
                });
            }
        }
        Err(Error::TooManyParticipants { slots: self.slots_of_each() })
    }

    /// Whether nobody is in a queue by the nodes of that slot, and it has names left. That its lease is free tells that
    /// nobody does anything there any more.
    fn is_vacant(&self, slot: CpuId) -> bool {
        let state = self.records()[slot.index()].state.load(Ordering::Acquire);
        incarnation(state) < MAX_INCARNATION && self.per_cpu_table()[slot.index()].depth() == 0
    }

    /// Whether the process of `name` has ended, for its lease is free; whatever the alive word says.
    pub(crate) fn is_abandoned(&self, name: Name) -> bool {
        let slot = name.slot();
        // A description does not see its own leases.
        let is_near = || self.is_near(slot);
        let is_ours = || self.own()[slot.index()].load(Ordering::Relaxed) == generation();
        let is_leased =
            || Lease::Participant(slot).is_held_by_others(self.description().as_fd()).unwrap_or(true);
        // Asked last: the lease was free while the slot was that of `name`.
        slot.index() < self.own().len()
            && is_near()
            && !is_ours()
            && !is_leased()
            && self.holder_of(slot) == Some(name)
    }

    /// Tells all that `name` is dead if it is abandoned; gives whether it is.
    pub(crate) fn bury(&self, name: Name) -> Result<bool> {
        if !self.is_abandoned(name) {
            return Ok(false);
        }
        // Nobody gets the slot meanwhile.
        let registry = Registry::lock(self)?;
        let is_abandoned = !registry.is_leased(name.slot())? && self.holder_of(name.slot()) == Some(name);
        if is_abandoned {
            self.retire(name.slot());
        }
        Ok(is_abandoned)
    }

    fn lease(&self, slot: CpuId) -> Result<bool> {
        let lease = Lease::Participant(slot).try_lock(self.description().as_fd(), Mode::Exclusive);
        lease.map_err(Error::io(self.label(), "take a lease"))
    }

    /// Makes the running thread the participant of a leased slot that nobody is in. Who dies in it leaves a slot that
    /// is not used.
    fn claim(&self, _registry: &Registry<'_>, slot: CpuId) -> Result<Tenancy> {
        let record = &self.records()[slot.index()];
        let last = record.state.load(Ordering::Relaxed) & !USED;
        // Release: who sees anything of what follows sees that the one before is dead.
        record.state.store(last, Ordering::Release);
        self.seat_table()[slot.index()].clear();

        let failed = |error| Error::io::<std::io::Error>(self.label(), "make an alive word")(error);
        let alive = AliveWord::hold().map_err(failed)?;
        let page = self.alive_page(slot);
        #[expect(clippy::cast_possible_truncation, reason = "less than a page")]
        record.alive_offset.store(alive.offset() as u32, Ordering::Release);
        // Release: who sees the new word sees the state above.
        for word in self.alive_word(slot).into_iter().chain(self.published_word(slot)) {
            word.store(alive.word(), Ordering::Release);
        }
        alive.show(self.description().as_fd(), page).map_err(failed)?;

        record.describe_this_thread();
        self.raise_high(slot);
        self.set_own(slot);
        // Release: whoever sees the name sees its word.
        record.state.store(last.wrapping_add(1 << INCARNATION_SHIFT) | USED, Ordering::Release);
        self.tell_agent();
        let name = Name::new(slot, incarnation(last) + 1);
        Ok(Tenancy { name, alive, description: self.description().clone(), own: self.own().clone() })
    }

    /// Lets others look at the seat of `slot`. Under the registry lock.
    fn raise_high(&self, slot: CpuId) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 16383")]
        let needed = slot.index() as u32 + 1;
        // Acquire and Release: whoever learns from this thread of its seat finds it in the table, whoever raised.
        let mut high = self.high().load(Ordering::Acquire);
        while high < needed {
            match self.high().compare_exchange(high, needed, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                // A thread of another domain.
                Err(raised) => high = raised,
            }
        }
    }

    /// Says that the participant of a slot has left: of this process, or of one that is gone.
    pub(crate) fn retire(&self, slot: CpuId) {
        let state = &self.records()[slot.index()].state;
        // Release: the next one continues the counters; who finds the name dead sees all that it did.
        state.store(state.load(Ordering::Relaxed) & !USED, Ordering::Release);
        self.mark_dead(slot);
        self.clear_own(slot);
    }

    /// Adds to a counter of the running thread, if it is registered.
    pub(crate) fn add_to_counter(&self, event: Event, amount: u64) {
        let Some(slot) = self.slot() else { return };
        let counter = &self.records()[slot.index()].counters[event.index()];
        // Only this thread writes it.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}
