//! Every lock under shuttle: more CPUs than loom can explore, under random schedules.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release -p crosslock-core --test shuttle
//! ```
//! shuttle is sequentially consistent: orderings are loom's business, long queues are this one's. The changes of
//! the lock word that are seen must be those of the diagram, all of them and no others. A failing schedule is
//! printed; keep it as a test with `shuttle::replay`.
#![cfg(shuttle)]

mod model;

use std::collections::BTreeSet;

use crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket, transitions};
use model::{Cpu, Machine, a_second_lock_counts, all_sections_count, diagram, trying_counts};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

const ITERATIONS: usize = 10_000;

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    // A schedule may keep a lock's owner waiting while others spin; it is given up without a verdict.
    config.max_steps = MaxSteps::ContinueAfter(20_000);
    config
}

fn check<L: RawLock<Cpu> + Send + 'static>() {
    drop(transitions::take());
    for cpus in [4, 6] {
        let run = move || all_sections_count::<L>(Machine::new(cpus), cpus, 3);
        Runner::new(RandomScheduler::new(ITERATIONS), config()).run(run);
        // Few, well-placed preemptions. S. Burckhardt et al., "A randomized scheduler with probabilistic
        // guarantees of finding bugs", ASPLOS 2010.
        Runner::new(PctScheduler::new(3, ITERATIONS), config()).run(run);
    }
    Runner::new(RandomScheduler::new(ITERATIONS), config()).run(trying_counts::<L>);
    let two_locks = || a_second_lock_counts::<L>(Machine::that_sleeps_at_once(4), 4);
    Runner::new(RandomScheduler::new(ITERATIONS), config()).run(two_locks);
    let expected: BTreeSet<_> = diagram::<L>().iter().map(ToString::to_string).collect();
    assert_eq!(transitions::take(), expected, "the changes of the word, and the diagram of {}", L::NAME);
}

#[test]
fn tas() {
    check::<RawTas>();
}

#[test]
fn ticket() {
    check::<RawTicket>();
}

#[test]
fn mcs() {
    check::<RawMcs>();
}

#[test]
fn qspinlock() {
    check::<RawQSpin>();
}

#[test]
fn pvqspinlock() {
    check::<RawPvQSpin>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_sleeping_blindly_loses_a_wake_up() {
    let run = || all_sections_count::<RawPvQSpin>(Machine::that_sleeps_blindly(4), 4, 3);
    Runner::new(RandomScheduler::new(10 * ITERATIONS), config()).run(run);
}
