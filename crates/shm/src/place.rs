//! A thread's place in each segment in which it is registered, from its registration until its end.
//!
//! What belongs to the thread, its entry in the robust list and its lease, stays with it when the segment is
//! closed: only the thread itself can leave its list, and only then may others have the slot.
//!
//! ```text
//!   who ends it             state = not used;  word |= OWNER_DIED, wake;     leave list;  give lease up
//!   ---------------------   ----------------------------------------------   --------------------------
//!   the thread              Place::drop                                      Place::drop
//!   the last handle         SegmentContext::drop (`own` = 0 when done)       Place::drop, later
//!   death                   the kernel sets OWNER_DIED, wakes one            the kernel, after that
//! ```

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{CpuId, Name};

use crate::alive::AliveWord;
use crate::description::{Description, generation};
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::segment::{Segment, SegmentContext};

/// What a registered thread has.
#[derive(Debug)]
pub(crate) struct Tenancy {
    pub(crate) name: Name,
    pub(crate) alive: AliveWord,
    /// Has the slot's lease.
    pub(crate) description: Arc<Description>,
    /// As [`SegmentContext::own`].
    pub(crate) own: Arc<[AtomicU32]>,
}

/// A thread's place in one segment.
#[derive(Debug)]
struct Place {
    segment: Weak<SegmentContext>,
    generation: u32,
    tenancy: Option<Tenancy>,
    /// Without a slot: how many times more to do without before asking again.
    retry_in: u32,
}

/// A thread that found no slot waits without a place in the queue this many times before it asks again.
const RETRY_IN: u32 = 256;

impl Place {
    fn is_in(&self, segment: &SegmentContext) -> bool {
        core::ptr::eq(self.segment.as_ptr(), segment) && self.generation == generation()
    }

    fn name(&self) -> Option<Name> {
        self.tenancy.as_ref().map(|tenancy| tenancy.name)
    }
}

impl Drop for Place {
    /// The thread ends, or its segment has gone.
    fn drop(&mut self) {
        forget_me();
        let Some(Tenancy { name, alive, description, own }) = self.tenancy.take() else { return };
        // In the child of a fork all of it is the parent's, but the pages.
        if self.generation != generation() {
            return;
        }
        let slot = name.slot();
        match self.segment.upgrade() {
            Some(segment) => segment.retire(slot),
            // The last handle is being dropped, by another thread perhaps: the slot must not have a new holder
            // before that has said that this one has left.
            None => {
                // Acquire: pairs with the Release in `retire`.
                while own[slot.index()].load(Ordering::Acquire) == self.generation {
                    std::thread::yield_now();
                }
            }
        }
        if alive.leave().is_ok() {
            // Should it fail, the slot stays leased until the process ends.
            let _ = Lease::Participant(slot).unlock(description.as_fd());
        }
    }
}

/// The participant that this thread last was: in the segment with that [`SegmentContext::id`], 0 for none.
type Cached = (u64, Name);

const NOBODY: Cached = match CpuId::new(0) {
    Some(slot) => (0, Name::new(slot, 0)),
    None => unreachable!(),
};

thread_local! {
    static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
    static CACHED: Cell<Cached> = const { Cell::new(NOBODY) };
}

/// The running thread is nobody until it is looked up.
pub(crate) fn forget_me() {
    CACHED.set(NOBODY);
}

/// Gives up this thread's places in segments that are closed.
pub(crate) fn leave_closed() {
    // Where the thread ends, or is just doing so, they are given up anyway.
    let _ = PLACES.try_with(|places| {
        if let Ok(mut places) = places.try_borrow_mut() {
            places.retain(|place| place.segment.strong_count() > 0);
        }
    });
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
    /// The name of the running thread, which is registered now if it is not yet.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`], [`Error::NotNow`], [`Error::ReadOnly`], [`Error::Busy`],
    /// [`Error::Io`].
    #[inline]
    pub fn me(&self) -> Result<Name> {
        let (segment, name) = CACHED.get();
        if segment == self.id() { Ok(name) } else { self.look_me_up() }
    }

    #[cold]
    fn look_me_up(&self) -> Result<Name> {
        let name = with_place(self, |place| place.name()).flatten().map_or_else(|| self.register(), Ok)?;
        CACHED.set((self.id(), name));
        Ok(name)
    }

    /// The slot of the running thread if it has one.
    pub(crate) fn slot(&self) -> Option<CpuId> {
        with_place(self, |place| place.name()).flatten().map(Name::slot)
    }

    /// The slot of the running thread, which it gets now if it has none; `None` where it gets none.
    pub(crate) fn slot_or_register(&self) -> Option<CpuId> {
        let wait_on = with_place(self, |place| {
            place.retry_in = place.retry_in.saturating_sub(1);
            (place.name(), place.retry_in)
        });
        let name = match wait_on {
            Some((Some(name), _)) => Some(name),
            Some((None, 1..)) => None,
            Some((None, 0)) | None => self.register().ok(),
        };
        name.map(Name::slot)
    }

    /// Gives the running thread a slot.
    #[cold]
    fn register(&self) -> Result<Name> {
        let register = |places: &RefCell<Vec<Place>>| {
            let mut places = places.try_borrow_mut().map_err(|_| Error::NotNow)?;
            let generation = generation();
            // Without those of closed segments, and those of the parent of a fork.
            places.retain(|place| {
                place.generation == generation && place.segment.strong_count() > 0 && !place.is_in(self)
            });
            let (tenancy, name) = match self.take_slot() {
                Ok(tenancy) => {
                    let name = tenancy.name;
                    (Some(tenancy), Ok(name))
                }
                Err(error) => (None, Err(error)),
            };
            places.push(Place { segment: self.weak(), generation, tenancy, retry_in: RETRY_IN });
            name
        };
        PLACES.try_with(register).unwrap_or(Err(Error::NotNow))
    }
}

impl Segment {
    /// Registers the running thread now, which otherwise happens when it first has to wait for a lock; gives
    /// its slot. The slot is the thread's until it ends, or until this process has closed the segment.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`]: spin locks work without a slot too, but such a thread waits without a place
    /// in the queue and without sleeping. [`Error::NotNow`], [`Error::ReadOnly`], [`Error::Busy`], [`Error::Io`].
    pub fn register(&self) -> Result<CpuId> {
        self.inner().me().map(Name::slot)
    }
}
