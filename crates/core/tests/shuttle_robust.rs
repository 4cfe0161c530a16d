//! The robust locks under shuttle: more participants than loom can explore, who die and give up at random.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release -p crosslock-core --test shuttle_robust
//! ```
//! Whoever survives must come back, and be told of a death exactly if there was one; see `model/robust.rs`. Everything that
//! the words can say must have been seen. A failing schedule is printed; keep it as a test with `shuttle::replay`.
#![cfg(shuttle)]

mod model;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use model::robust::{ALL_LIVE, Fates, Guarded, How, Kind, PLAIN, Visited, run_rounds};
use model::{robust, robust_rw};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

const ITERATIONS: usize = 6_000;

/// Steps of some visits, waiting included.
const LIFE: u32 = 200;

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    // Nobody spins for long, so this is a livelock.
    config.max_steps = MaxSteps::FailAfter(200_000);
    config
}

fn any<T: Copy>(of: &[T]) -> T {
    of[thread_rng().gen_range(0..of.len())]
}

/// Every other participant dies, most of them in their first visits; one at least lives.
fn any_fates(participants: usize) -> Fates {
    let mut fates = ALL_LIVE;
    for fate in &mut fates[..participants] {
        if thread_rng().gen_bool(0.5) {
            let most = any(&[LIFE / 8, LIFE / 2, LIFE]);
            *fate = Some(thread_rng().gen_range(0..most));
        }
    }
    fates[any(&[0, 1, 2])] = None;
    fates
}

/// One execution: 4 to 6 participants, each with up to three visits.
fn live_and_die<V: Visited>(ways: &[V::How], died: &Mutex<usize>) {
    let kind = Kind { heavy_barrier: any(&[true, false]), time_flies: any(&[true, false]), ..PLAIN };
    let participants = any(&[4, 5, 6]);
    let lives = (0..participants).map(|_| (0..any(&[1, 2, 3])).map(|_| any(ways)).collect());
    let dead = run_rounds::<V>(kind, lives.collect(), any_fates(participants));
    *died.lock().unwrap() += dead.into_iter().filter(|dead| *dead).count();
}

fn check<V: Visited>(ways: &'static [V::How]) {
    let died = Arc::new(Mutex::new(0));
    let run = || {
        let died = Arc::clone(&died);
        move || live_and_die::<V>(ways, &died)
    };
    Runner::new(RandomScheduler::new(ITERATIONS), config()).run(run());
    // Few, well-placed preemptions. S. Burckhardt et al., "A randomized scheduler with probabilistic
    // guarantees of finding bugs", ASPLOS 2010.
    Runner::new(PctScheduler::new(3, ITERATIONS), config()).run(run());
    let died = *died.lock().unwrap();
    println!("{died} deaths");
    assert!(died > ITERATIONS, "hardly anybody has died: {died}");
}

#[test]
fn mutex() {
    use How::{GiveUp, Try, Wait};
    check::<Guarded>(&[Wait, Wait, Wait, GiveUp, Try]);
}

#[test]
fn mutex_with_data_given_up() {
    use How::{Forsake, GiveUp, Try, Wait};
    check::<Guarded>(&[Wait, Wait, Wait, Forsake, GiveUp, Try]);
}

/// Two who join at once both believe to be the head, and each takes the other's request away. Loom needs more switches for this
/// than it can explore.
#[test]
fn an_owner_and_two_who_join_at_once() {
    for kind in [PLAIN, Kind { time_flies: true, ..PLAIN }] {
        let run = move || drop(run_rounds::<Guarded>(kind, vec![vec![How::Wait]; 3], ALL_LIVE));
        Runner::new(RandomScheduler::new(10 * ITERATIONS), config()).run(run);
        Runner::new(PctScheduler::new(4, 10 * ITERATIONS), config()).run(run);
    }
}

#[test]
fn rwlock() {
    use robust_rw::How::{Read, ReadOrLeave, ReadTwice, TryRead, TryWrite, Write, WriteOrLeave};
    check::<robust_rw::GuardedRw>(&[
        Read,
        Read,
        ReadTwice,
        ReadOrLeave,
        TryRead,
        Write,
        Write,
        WriteOrLeave,
        TryWrite,
    ]);
}

#[test]
fn rwlock_with_data_in_doubt() {
    use robust_rw::How::{Forsake, Poison, Read, TryRead, TryWrite, Write};
    check::<robust_rw::GuardedRw>(&[Read, Read, TryRead, Write, Write, TryWrite, Poison, Forsake]);
}

/// A mutex that is looked at between all steps.
struct Watched(Guarded);

static SEEN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// All that the owner word and the attention word can say.
const WORDS: [&str; 8] = [
    "Free(",
    "Held(",
    "Reserved(",
    "attention: None",
    "wish: Kick,",
    "wish: Kicked,",
    "wish: Reserve,",
    "wish: ReserveAndKick,",
];

impl Visited for Watched {
    /// `None`: looks on.
    type How = Option<How>;

    fn new() -> Self {
        Self(Guarded::new())
    }

    fn visit(&self, cx: &robust::Participant, how: Self::How) {
        let Some(how) = how else {
            for _ in 0..40 {
                let said = format!("{:?}", self.0.lock);
                SEEN.lock().unwrap().extend(WORDS.into_iter().filter(|word| said.contains(word)));
                model::thread::yield_now();
            }
            return;
        };
        self.0.visit(cx, how);
    }

    fn mourn(&self, cx: &robust::Participant) {
        self.0.mourn(cx);
    }

    fn check(&self, heir: Option<&robust::Participant>) {
        self.0.check(heir);
    }
}

#[test]
fn all_that_the_words_can_say_is_seen() {
    check::<Watched>(&[None, Some(How::Wait), Some(How::Wait), Some(How::GiveUp)]);
    assert_eq!(*SEEN.lock().unwrap(), BTreeSet::from(WORDS));
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_silent_deaths_leave_sleepers() {
    let run = || {
        let kind = Kind { deaths_are_silent: true, ..PLAIN };
        run_rounds::<Guarded>(kind, vec![vec![How::Wait; 2]; 4], any_fates(4));
    };
    Runner::new(RandomScheduler::new(ITERATIONS), config()).run(run);
}
