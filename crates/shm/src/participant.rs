//! Participants: the threads that have waited for a lock in a segment, each in a slot of its own.
//!
//! ```text
//!   state      31                     1   0
//!             +------------------------+------+
//!             |      incarnation       | used |
//!             +------------------------+------+
//!
//!   register   (registry lock)  lease free?  depth 0?  take lease;  state = incarnation + 1, used
//!   release                     state = not used;  give lease up
//!   death                       the kernel gives the lease up; used without a lease = dead
//! ```
//! Only the holder of a slot's lease writes its record. A slot whose thread died in a queue (`depth` is not
//! 0) is *wedged*: other waiters may still point at its nodes, so it is not given to anybody.
//!
//! The counters of a slot only grow, whoever has it: their sum over all slots is that of the segment.

use core::mem::offset_of;
use std::cell::RefCell;
use std::os::fd::AsFd;
use std::sync::Weak;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, Event};
use rustix::time::{ClockId, clock_gettime};

use crate::description::generation;
use crate::error::{Error, Result};
use crate::lease::{Lease, Mode};
use crate::mapping::SharedLayout;
use crate::registry::Registry;
use crate::segment::{Segment, SegmentContext};
use crate::text::Text;

/// Room for counters in each record, more than there are events.
pub(crate) const COUNTERS: u32 = 48;

const USED: u32 = 1;
const INCARNATION_SHIFT: u32 = 1;

/// One slot, as it lies in the segment. All but `state` and `counters` is for people.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) state: AtomicU32,
    pub(crate) pid: AtomicU32,
    pub(crate) tid: AtomicU32,
    reserved: AtomicU32,
    /// Nanoseconds since the Unix epoch.
    pub(crate) registered_ns: AtomicU64,
    pub(crate) name: [AtomicU64; 3],
    reserved2: [AtomicU64; 2],
    pub(crate) counters: [AtomicU64; COUNTERS as usize],
}

const _: () = {
    assert!(Event::COUNT <= COUNTERS as usize);
    assert!(offset_of!(Record, pid) == 4);
    assert!(offset_of!(Record, tid) == 8);
    assert!(offset_of!(Record, registered_ns) == 16);
    assert!(offset_of!(Record, name) == 24);
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

const fn next_incarnation(state: u32) -> u32 {
    (state & !USED).wrapping_add(1 << INCARNATION_SHIFT) | USED
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

/// A thread's place in one segment.
#[derive(Debug)]
struct Place {
    segment: Weak<SegmentContext>,
    generation: u32,
    slot: Option<CpuId>,
    /// Without a slot: how many times more to do without before asking again.
    retry_in: u32,
}

/// A thread that found no slot waits without a place in the queue this many times before it asks again.
const RETRY_IN: u32 = 256;

impl Place {
    fn is_in(&self, segment: &SegmentContext) -> bool {
        core::ptr::eq(self.segment.as_ptr(), segment) && self.generation == generation()
    }
}

impl Drop for Place {
    /// The thread ends, or its segment has gone.
    fn drop(&mut self) {
        if let (Some(slot), true, Some(segment)) =
            (self.slot, self.generation == generation(), self.segment.upgrade())
        {
            segment.release(slot);
        }
    }
}

thread_local! {
    static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// Looks for this thread's place. `None` also in the last moments of a thread, and in a signal handler that
/// interrupted this very function.
fn with_place<R>(segment: &SegmentContext, look: impl FnOnce(&mut Place) -> R) -> Option<R> {
    PLACES
        .try_with(|places| {
            places.try_borrow_mut().ok()?.iter_mut().find(|place| place.is_in(segment)).map(look)
        })
        .ok()?
}

impl SegmentContext {
    /// The slot of the running thread if it has one.
    pub(crate) fn slot(&self) -> Option<CpuId> {
        with_place(self, |place| place.slot).flatten()
    }

    /// The slot of the running thread, which it gets now if it has none; `None` where it gets none.
    pub(crate) fn slot_or_register(&self) -> Option<CpuId> {
        let wait_on = with_place(self, |place| {
            place.retry_in = place.retry_in.saturating_sub(1);
            (place.slot, place.retry_in)
        });
        match wait_on {
            Some((Some(slot), _)) => Some(slot),
            Some((None, 1..)) => None,
            Some((None, 0)) | None => self.register().ok(),
        }
    }

    /// Gives the running thread a slot.
    #[cold]
    fn register(&self) -> Result<CpuId> {
        let register = |places: &RefCell<Vec<Place>>| {
            let mut places = places.try_borrow_mut().map_err(|_| Error::NotNow)?;
            let generation = generation();
            // Without those of closed segments, and those of the parent of a fork.
            places.retain(|place| {
                place.generation == generation && place.segment.strong_count() > 0 && !place.is_in(self)
            });
            let found = self.take_slot();
            let slot = found.as_ref().ok().copied();
            places.push(Place { segment: self.me(), generation, slot, retry_in: RETRY_IN });
            found
        };
        PLACES.try_with(register).unwrap_or(Err(Error::NotNow))
    }

    fn take_slot(&self) -> Result<CpuId> {
        let registry = Registry::lock(self)?;
        let slots = || (0..self.records().len()).filter_map(CpuId::new);
        let used = |slot: &CpuId| is_used(self.records()[slot.index()].state.load(Ordering::Acquire));
        // Those of the dead are used last: they tell more to who looks.
        for slot in slots().filter(|slot| !used(slot)).chain(slots().filter(used)) {
            if self.per_cpu_table()[slot.index()].depth() == 0
                && !registry.is_leased(slot)?
                && self.claim(slot)?
            {
                return Ok(slot);
            }
        }
        Err(Error::TooManyParticipants { slots: self.records().len() })
    }

    /// Makes this thread the participant of a slot that nobody has.
    fn claim(&self, slot: CpuId) -> Result<bool> {
        let lease = Lease::Participant(slot).try_lock(self.description().as_fd(), Mode::Exclusive);
        if !lease.map_err(Error::io(self.label(), "take a lease"))? {
            return Ok(false);
        }
        self.set_own(slot, true);
        let record = &self.records()[slot.index()];
        record.describe_this_thread();
        record.state.store(next_incarnation(record.state.load(Ordering::Relaxed)), Ordering::Release);
        Ok(true)
    }

    /// Gives up a slot that this process has registered.
    pub(crate) fn release(&self, slot: CpuId) {
        let state = &self.records()[slot.index()].state;
        // Release: the next one continues the counters.
        state.store(state.load(Ordering::Relaxed) & !USED, Ordering::Release);
        self.set_own(slot, false);
        // Should it fail, the slot stays leased until the process ends.
        let _ = Lease::Participant(slot).unlock(self.description().as_fd());
    }

    /// Adds to a counter of the running thread, if it is registered.
    pub(crate) fn add_to_counter(&self, event: Event, amount: u64) {
        let Some(slot) = self.slot() else { return };
        let counter = &self.records()[slot.index()].counters[event.index()];
        // Only this thread writes it.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

impl Segment {
    /// Registers the running thread now, which otherwise happens when it first has to wait for a lock; gives
    /// its slot. The slot is the thread's until it ends, or until this process has closed the segment.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`]: locks work without a slot too, but such a thread waits without a place
    /// in the queue and without sleeping. [`Error::ReadOnly`], [`Error::Busy`], [`Error::Io`].
    pub fn register(&self) -> Result<CpuId> {
        let segment = self.inner();
        segment.slot().map_or_else(|| segment.register(), Ok)
    }
}
