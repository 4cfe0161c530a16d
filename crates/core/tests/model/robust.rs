//! Participants that can die, for the model checkers.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex};

use crosslock_core::primitive::model::{Death, die_after, in_kernel, live, step};
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, fence, spin_hint};
use crosslock_core::{
    Condition, CpuId, HAND_OVER_NS, LockKey, Name, Ownership, RawRobust, Refused, RobustOps, Seat,
};

use super::{Counter, thread};

/// All participants, each with a bed.
pub(crate) struct World {
    seats: Vec<Seat>,
    /// 1: dead. As an alive word, it is set when the participant has stopped.
    dead: Vec<AtomicU32>,
    beds: Vec<(Mutex<()>, Condvar)>,
    kind: Kind,
}

/// What the world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Releases are stores, and the barrier is paid by who goes to sleep.
    pub(crate) heavy_barrier: bool,
    /// Every wait counts as a long one: heads ask for hand-overs.
    pub(crate) time_flies: bool,
    /// Negative control: nobody is told of a death.
    pub(crate) deaths_are_silent: bool,
}

pub(crate) const PLAIN: Kind = Kind { heavy_barrier: true, time_flies: false, deaths_are_silent: false };

/// One participant's view.
pub(crate) struct Participant {
    world: Arc<World>,
    pub(crate) name: Name,
    clock: std::cell::Cell<u64>,
}

fn name(slot: usize) -> Name {
    Name::new(CpuId::new(slot).unwrap(), 1)
}

impl Participant {
    fn new(world: &Arc<World>, slot: usize) -> Self {
        Self { world: Arc::clone(world), name: name(slot), clock: std::cell::Cell::new(0) }
    }

    /// The kernel's part in a death.
    fn die(&self) {
        self.world.dead[self.name.slot().index()].store(1, Ordering::Release);
        if !self.world.kind.deaths_are_silent {
            for (mutex, condvar) in &self.world.beds {
                drop(mutex.lock().unwrap());
                condvar.notify_all();
            }
        }
    }
}

// SAFETY: who dies unwinds to the end of its thread before it is marked dead.
unsafe impl RobustOps for Participant {
    fn seats(&self) -> &[Seat] {
        &self.world.seats
    }

    fn name_of(&self, slot: CpuId) -> Option<Name> {
        Some(name(slot.index()))
    }

    fn is_dead(&self, name: Name) -> bool {
        self.world.dead[name.slot().index()].load(Ordering::Acquire) == 1
    }

    /// As `futex_waitv`: the kernel compares and goes to sleep under locks that the wakers take.
    fn sleep(&self, me: Name, seen: u32, watched: Name, _until_ns: u64) {
        let (mutex, condvar) = &self.world.beds[me.slot().index()];
        let kicks = self.world.seats[me.slot().index()].kicks();
        in_kernel(|| {
            let mut guard = mutex.lock().unwrap();
            while kicks.load(Ordering::Relaxed) == seen && !self.is_dead(watched) {
                guard = condvar.wait(guard).unwrap();
            }
        });
    }

    fn kick(&self, slot: CpuId) {
        self.world.seats[slot.index()].kicks().fetch_add(1, Ordering::Release);
        let (mutex, condvar) = &self.world.beds[slot.index()];
        // A death before the wake-up is one between the two.
        step();
        in_kernel(|| drop(mutex.lock().unwrap()));
        condvar.notify_one();
    }

    fn lock_key(&self, _word: &AtomicU64) -> LockKey {
        LockKey::new(1).unwrap()
    }

    fn now_ns(&self) -> u64 {
        if self.world.kind.time_flies {
            self.clock.set(self.clock.get() + HAND_OVER_NS);
        }
        self.clock.get()
    }

    fn has_heavy_barrier(&self) -> bool {
        self.world.kind.heavy_barrier
    }

    fn heavy_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn relax(&self) {
        spin_hint();
    }

    /// A turn of a spin loop would take back the stale reads that came before it.
    fn looks_before_sleep(&self) -> u32 {
        1
    }

    fn looks_when_wanted(&self) -> u32 {
        1
    }
}

/// A lock, and a counter that it guards.
struct Guarded {
    lock: RawRobust,
    counter: Counter,
}

impl Guarded {
    fn visit(&self, cx: &Participant, how: How) {
        let condition = match how {
            How::Wait => self.lock.acquire(cx, cx.name),
            How::GiveUp => match self.lock.acquire_until(cx, cx.name, 0) {
                Err(Refused::TimedOut) => return,
                other => other,
            },
        };
        let condition = condition.unwrap();
        self.counter.add_one();
        if !condition.is_consistent() {
            // SAFETY: acquired above.
            unsafe { self.lock.mark_consistent(cx.name) }.unwrap();
        }
        // SAFETY: acquired above.
        unsafe { self.lock.release(cx, cx.name) }.unwrap();
    }
}

/// How a participant asks for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Wait,
    /// Does not sleep: gives up after the first look from its seat.
    GiveUp,
}

/// Each of `hows` takes the lock once; participant 0, if it is given a number of steps, dies after so many. All
/// others come back, and the lock is free at the end. Gives whether somebody died.
pub(crate) fn run(kind: Kind, hows: &'static [How], victim_steps: Option<u32>) -> bool {
    let world = Arc::new(World {
        seats: hows.iter().map(|_| Seat::new()).collect(),
        dead: hows.iter().map(|_| AtomicU32::new(0)).collect(),
        beds: hows.iter().map(|_| (Mutex::new(()), Condvar::new())).collect(),
        kind,
    });
    let guarded = Arc::new(Guarded { lock: RawRobust::new(), counter: Counter::new() });
    live();
    let others: Vec<_> = (1..hows.len())
        .map(|slot| {
            let (world, guarded) = (Arc::clone(&world), Arc::clone(&guarded));
            thread::spawn(move || guarded.visit(&Participant::new(&world, slot), hows[slot]))
        })
        .collect();
    let cx = Participant::new(&world, 0);
    let died = match victim_steps {
        None => {
            guarded.visit(&cx, hows[0]);
            false
        }
        Some(steps) => {
            die_after(steps);
            let life = catch_unwind(AssertUnwindSafe(|| guarded.visit(&cx, hows[0])));
            live();
            match life {
                Ok(()) => false,
                Err(cause) if cause.is::<Death>() => {
                    cx.die();
                    true
                }
                Err(cause) => resume_unwind(cause),
            }
        }
    };
    for other in others {
        other.join().unwrap();
    }
    let word = guarded.lock.ownership().unwrap();
    let reserved = matches!(word, Ownership::Reserved(_));
    match word {
        Ownership::Held(owner, _) => assert!(died && owner == cx.name, "left as {word}"),
        Ownership::Free(condition) => assert_eq!(condition, Condition::CONSISTENT),
        Ownership::Reserved(_) | Ownership::Lost => assert!(reserved, "left as {word}"),
    }
    died
}
