//! Bells: eventfds on which the threads of a virtual machine sleep, so that a kick from another kernel reaches them without
//! a way through their agent.
//!
//! ```text
//!   the sleeper                        who kicks it
//!   --------------------------------   ----------------------------------------------
//!   vector = that of its bell          kicks += 1
//!   fence                        [V]   fence                                      [V]
//!   kicked already?                    vector?   0: as without bells
//!   epoll_wait on the eventfd                    else: ring that vector of its domain
//! ```
//! Of the two fences one is first: either the sleeper sees the kick, or who kicks sees the vector. Several threads may have one
//! bell. Nobody ever reads the eventfd: each thread has an epoll instance of its own that reports every signal once, whether it came
//! before the sleep or during it, and so no other takes it away.
//!
//! The bells are those of the agent that has handed them out. When there is another agent, the device rings other eventfds, so
//! whoever is about to sleep or to ring sees to it that it has the bells of that one.

use core::fmt;
use core::time::Duration;
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, RwLock};

use crosslock_core::primitive::{AtomicU32, Ordering, fence};
use crosslock_core::{CpuId, Name};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::description::generation;
use crate::segment::{Segment, SegmentContext};

/// Eventfds, the first of which is rung by vector 1.
type Set = Arc<[OwnedFd]>;

/// Where the bells come from, and those that there are.
#[derive(Default)]
pub(crate) struct Bells {
    source: OnceLock<Box<dyn Fn() -> Vec<OwnedFd> + Send + Sync>>,
    /// And whose they are. Nobody waits for the lock: who does not get it does without bells this time.
    current: RwLock<Option<(Name, Set)>>,
}

impl Bells {
    /// Those of `agent`; of the last one, which still work, while there is none.
    fn of(&self, agent: Option<Name>) -> Option<Set> {
        self.source.get()?;
        let found = self.current.try_read().ok()?.clone();
        let found = match (found, agent) {
            (Some((whose, bells)), Some(agent)) if whose == agent => bells,
            (Some((_, bells)), None) => bells,
            (_, Some(agent)) => self.ask(agent)?,
            (None, None) => return None,
        };
        (!found.is_empty()).then_some(found)
    }

    #[cold]
    fn ask(&self, agent: Name) -> Option<Set> {
        let mut current = self.current.try_write().ok()?;
        // None are remembered as well: that agent is not asked again.
        let bells: Set = (self.source.get()?)().into();
        *current = Some((agent, bells.clone()));
        Some(bells)
    }
}

impl fmt::Debug for Bells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bells").finish_non_exhaustive()
    }
}

/// What a thread sleeps on.
struct Bed {
    bells: Set,
    index: usize,
    generation: u32,
    epoll: OwnedFd,
}

impl Bed {
    fn make(bells: &Set, index: usize) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &bells[index], EventData::new_u64(0), flags)?;
        Ok(Self { bells: bells.clone(), index, generation: generation(), epoll })
    }

    /// Sleeps until the bell rings, or for so long; gives whether it rang.
    fn sleep(&self, longest: Duration) -> bool {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        // Whatever ends it, the caller looks again.
        epoll::wait(&self.epoll, &mut events, longest.try_into().ok().as_ref()) != Ok(0)
    }
}

thread_local! {
    static BEDS: RefCell<Vec<Bed>> = const { RefCell::new(Vec::new()) };
}

/// Has the running thread do that in its bed for that bell. `None` where it has none: in its last moments, in a signal handler that
/// interrupted this, or where there are no descriptors.
fn in_bed<R>(bells: &Set, index: usize, sleep: impl FnOnce(&Bed) -> R) -> Option<R> {
    let find = |beds: &RefCell<Vec<Bed>>| {
        let mut beds = beds.try_borrow_mut().ok()?;
        let fits = |bed: &Bed| {
            Arc::ptr_eq(&bed.bells, bells) && bed.index == index && bed.generation == generation()
        };
        if !beds.iter().any(fits) {
            // Without those that nobody else knows, and those of the parent of a fork.
            beds.retain(|bed| bed.generation == generation() && Arc::strong_count(&bed.bells) > 1);
            beds.push(Bed::make(bells, index).ok()?);
        }
        beds.iter().find(|bed| fits(bed)).map(sleep)
    };
    BEDS.try_with(find).ok()?
}

impl SegmentContext {
    fn own_bells(&self) -> Option<Set> {
        self.bells().of(self.agent_of(self.domain()))
    }

    fn vector(&self, slot: CpuId) -> &AtomicU32 {
        &self.records()[slot.index()].vector
    }

    /// Sleeps on the bell of `me`, unless it is over already, or for so long; gives whether something has ended it. `None` where there is no
    /// bell to sleep on; whoever kicks knows that from now on.
    pub(crate) fn sleep_on_bell(
        &self,
        me: CpuId,
        longest: Duration,
        is_over: impl FnOnce() -> bool,
    ) -> Option<bool> {
        self.home()?;
        let vector = self.vector(me);
        let slept = self.own_bells().and_then(|bells| {
            let index = self.index(me) % bells.len();
            in_bed(&bells, index, |bed| {
                vector.store(u32::try_from(index + 1).unwrap_or(0), Ordering::Relaxed);
                fence(Ordering::SeqCst); // [V]
                is_over() || bed.sleep(longest)
            })
        });
        if slept.is_none() && vector.load(Ordering::Relaxed) != 0 {
            vector.store(0, Ordering::Relaxed);
            fence(Ordering::SeqCst); // [V]
        }
        slept
    }

    /// The vector of the bell on which `slot`, which has been kicked, sleeps; 0: on none.
    pub(crate) fn vector_of(&self, slot: CpuId) -> u16 {
        fence(Ordering::SeqCst); // [V]
        // What is no vector a peer has written.
        self.vector(slot).load(Ordering::Relaxed).try_into().unwrap_or(0)
    }

    /// Rings a bell of this domain; gives whether there was one.
    pub(crate) fn ring_bell(&self, vector: u16) -> bool {
        let Some(bells) = self.own_bells() else { return false };
        let bell = usize::from(vector).checked_sub(1).and_then(|index| bells.get(index));
        // Where it cannot be rung the sleeper looks by itself.
        bell.is_some_and(|bell| rustix::io::write(bell.as_fd(), &1_u64.to_ne_bytes()).is_ok())
    }
}

impl Segment {
    /// Where this process gets eventfds that the device of this virtual machine rings by its vectors from 1 on, the first of them by
    /// vector 1. `bells` is called when a thread first sleeps, and again when another agent stands for the domain, by a thread that is to
    /// sleep: so it must not take long. An empty answer means that there are none, and kicks go through the agent.
    ///
    /// Nobody may read the eventfds. Only the first source counts.
    pub fn set_bells(&self, bells: impl Fn() -> Vec<OwnedFd> + Send + Sync + 'static) {
        // An error says that there is a source.
        let _ = self.inner().bells().source.set(Box::new(bells));
    }
}
