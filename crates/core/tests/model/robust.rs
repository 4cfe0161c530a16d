//! Participants that can die, for the model checkers.

use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex};

use crosslock_core::primitive::model::{Death, all_live, die_after, in_kernel, live, step};
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
    /// Negative control: nobody finds participant 0 by its slot.
    pub(crate) first_is_hidden: bool,
}

pub(crate) const PLAIN: Kind =
    Kind { heavy_barrier: true, time_flies: false, deaths_are_silent: false, first_is_hidden: false };

impl World {
    fn new(kind: Kind, participants: usize) -> Self {
        Self {
            seats: (0..participants).map(|_| Seat::new()).collect(),
            dead: (0..participants).map(|_| AtomicU32::new(0)).collect(),
            beds: (0..participants).map(|_| (Mutex::new(()), Condvar::new())).collect(),
            kind,
        }
    }
}

/// One participant's view.
pub(crate) struct Participant {
    world: Arc<World>,
    pub(crate) name: Name,
    clock: core::cell::Cell<u64>,
}

fn name(slot: usize) -> Name {
    Name::new(CpuId::new(slot).unwrap(), 1)
}

impl Participant {
    fn new(world: &Arc<World>, slot: usize) -> Self {
        Self { world: Arc::clone(world), name: name(slot), clock: core::cell::Cell::new(0) }
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
        (!self.world.kind.first_is_hidden || slot.index() != 0).then(|| name(slot.index()))
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
    fn spin_rounds(&self) -> u32 {
        0
    }

    fn spin_when_wanted_ns(&self) -> u64 {
        0
    }
}

/// After how many steps each participant dies; `None`: it does not.
pub(crate) type Fates = [Option<u32>; 6];

pub(crate) const ALL_LIVE: Fates = [None; 6];

/// A lock and what it guards, as participants visit them.
pub(crate) trait Visited: Send + Sync + 'static {
    /// How a participant asks for the lock.
    type How: Copy + Send + Sync + 'static;

    fn new() -> Self;

    fn visit(&self, cx: &Participant, how: Self::How);

    /// What `cx`, which has died just now, leaves.
    fn mourn(&self, cx: &Participant);

    /// When all have come back or died; `heir` has come back, and is alone.
    fn check(&self, heir: Option<&Participant>);
}

/// Whether it came back alive.
fn survives<V: Visited>(visited: &V, cx: &Participant, hows: &[V::How], fate: Option<u32>) -> bool {
    if let Some(steps) = fate {
        die_after(steps);
    }
    let life = catch_unwind(AssertUnwindSafe(|| hows.iter().for_each(|&how| visited.visit(cx, how))));
    live();
    match life {
        Ok(()) => true,
        Err(cause) if cause.is::<Death>() => {
            visited.mourn(cx);
            cx.die();
            false
        }
        Err(cause) => resume_unwind(cause),
    }
}

/// Each participant visits the lock once in each of its ways, or dies. All who live come back. Gives who died.
pub(crate) fn run_rounds<V: Visited>(kind: Kind, lives: Vec<Vec<V::How>>, fates: Fates) -> Vec<bool> {
    let world = Arc::new(World::new(kind, lives.len()));
    let visited = Arc::new(V::new());
    all_live();
    let mut lives = lives.into_iter().enumerate();
    let (_, first) = lives.next().unwrap();
    let others: Vec<_> = lives
        .map(|(slot, hows)| {
            let (world, visited) = (Arc::clone(&world), Arc::clone(&visited));
            thread::spawn(move || survives(&*visited, &Participant::new(&world, slot), &hows, fates[slot]))
        })
        .collect();
    let mut died = vec![!survives(&*visited, &Participant::new(&world, 0), &first, fates[0])];
    died.extend(others.into_iter().map(|other| !other.join().unwrap()));
    let heir = died.iter().position(|died| !died);
    visited.check(heir.map(|slot| Participant::new(&world, slot)).as_ref());
    died
}

/// As [`run_rounds`], with one visit each.
pub(crate) fn run<V: Visited>(kind: Kind, hows: &'static [V::How], fates: Fates) -> Vec<bool> {
    run_rounds::<V>(kind, hows.iter().map(|&how| vec![how]).collect(), fates)
}

/// Turns of spin loops after which an execution goes on without branches.
#[cfg(loom)]
const SPINS: u32 = 4;

/// Explores one model; gives who died in any execution.
#[cfg(loom)]
pub(crate) fn explore<V: Visited>(
    kind: Kind,
    hows: &'static [V::How],
    fates: Fates,
    switches: usize,
) -> Vec<bool> {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    let died = Arc::new(std::sync::Mutex::new(vec![false; hows.len()]));
    let seen = Arc::clone(&died);
    builder.check(move || {
        crosslock_core::primitive::model::bound_spins(SPINS);
        for (slot, died) in run::<V>(kind, hows, fates).into_iter().enumerate() {
            seen.lock().unwrap()[slot] |= died;
        }
    });
    let died = died.lock().unwrap();
    died.clone()
}

/// Kills participant 0 at every step of its visit.
#[cfg(loom)]
pub(crate) fn die_everywhere<V: Visited>(kind: Kind, hows: &'static [V::How], switches: usize) {
    let mut steps = 0;
    while explore::<V>(kind, hows, [Some(steps), None, None, None, None, None], switches)[0] {
        steps += 1;
    }
    assert!(steps >= 10, "{steps} steps only: the victim did not do its work");
    println!("{steps} steps");
}

/// Kills the first of two participants at every `stride`th step of its visit, and in the same execution the second at every
/// step of its own.
#[cfg(loom)]
pub(crate) fn two_die<V: Visited>(
    kind: Kind,
    hows: &'static [V::How],
    victims: [usize; 2],
    switches: usize,
    stride: usize,
) {
    let [one, other] = victims;
    let explore = |first: u32, second: Option<u32>| {
        let mut fates = ALL_LIVE;
        (fates[one], fates[other]) = (Some(first), second);
        explore::<V>(kind, hows, fates, switches)
    };
    let (mut steps, mut pairs) = (0, 0);
    for first in (0..).step_by(stride).take_while(|&first| explore(first, None)[one]) {
        steps = first;
        pairs += (0..).take_while(|&second| explore(first, Some(second))[other]).count();
    }
    println!("{steps} steps, {pairs} pairs");
    assert!(steps > 8 && pairs > 100, "they did not do their work");
}

/// A lock, and a counter that it guards.
pub(crate) struct Guarded {
    pub(crate) lock: RawRobust,
    counter: Counter,
    /// Not a part of the model: written and read in the order of the execution.
    truth: std::sync::Mutex<Truth>,
}

/// What is true of a lock, known from outside.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    /// An owner has died inside since the data were marked consistent.
    suspect: bool,
    /// They were not, and are given up.
    lost: bool,
    /// Changes that came to their end.
    changes: usize,
}

/// How a participant asks for a mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Wait,
    /// Does not sleep: gives up after the first look from its seat.
    GiveUp,
    /// Does not sit down.
    Try,
    /// Waits, and never marks the data consistent.
    Forsake,
}

impl Visited for Guarded {
    type How = How;

    fn new() -> Self {
        Self { lock: RawRobust::new(), counter: Counter::new(), truth: std::sync::Mutex::default() }
    }

    fn visit(&self, cx: &Participant, how: How) {
        let (lock, truth) = (&self.lock, || self.truth.lock().unwrap());
        let got = match how {
            How::Wait | How::Forsake => lock.acquire(cx, cx.name).map(Some),
            How::GiveUp => match lock.acquire_until(cx, cx.name, 0) {
                Err(Refused::TimedOut) => Ok(None),
                other => other.map(Some),
            },
            How::Try => lock.try_acquire(cx, cx.name),
        };
        let condition = match got {
            Ok(Some(condition)) => condition,
            Ok(None) => return,
            Err(refused) => {
                assert_eq!(refused, Refused::NotRecoverable);
                assert!(truth().lost, "nobody has given the data up");
                return;
            }
        };
        assert!(!truth().lost, "the data are given up");
        let expected = Condition { owner_died: truth().suspect, poisoned: false };
        assert_eq!(condition, expected, "what the new owner is told");
        self.counter.add_one();
        truth().changes += 1;
        if condition.owner_died && how == How::Forsake {
            truth().lost = true;
        } else if condition.owner_died {
            // SAFETY: acquired above.
            unsafe { lock.mark_consistent(cx.name) }.unwrap();
            truth().suspect = false;
        }
        // SAFETY: acquired above.
        unsafe { lock.release(cx, cx.name) }.unwrap();
    }

    fn mourn(&self, cx: &Participant) {
        if let Ok(Ownership::Held(owner, condition)) = self.lock.ownership()
            && owner == cx.name
        {
            let mut truth = self.truth.lock().unwrap();
            assert!(!condition.owner_died || truth.suspect);
            // Whoever was about to give the data up has not done it.
            (truth.suspect, truth.lost) = (true, false);
        }
    }

    fn check(&self, heir: Option<&Participant>) {
        let truth = *self.truth.lock().unwrap();
        if let Some(cx) = heir {
            match self.lock.try_acquire(cx, cx.name) {
                Ok(Some(condition)) => assert_eq!(condition.owner_died, truth.suspect),
                Ok(None) => panic!("nobody is left who could have it: {:?}", self.lock),
                Err(refused) => assert_eq!((refused, truth.lost), (Refused::NotRecoverable, true)),
            }
        }
        assert_eq!(self.counter.get(), truth.changes, "a change was lost");
    }
}
