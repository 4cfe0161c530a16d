//! Every lock under loom: all interleavings, and all the stale reads that the memory model allows.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-core --test loom
//! ```
//! Bounds: two CPUs that take the lock once run to the end, without any bound but on spinning. With more CPUs or
//! rounds, every execution with at most the given number of involuntary switches is explored. In all, the
//! schedule branches during the first [`SPINS`] turns of spin loops of an execution; a longer spin
//! reaches no state that a shorter one does not. Every change of a lock word that is seen must be one of its
//! diagram; that each of the diagram is seen is shuttle's part.
#![cfg(loom)]

mod model;

use crosslock_core::primitive::model::{Fault, bound_spins, inject};
use crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket, transitions};
use model::{Cpu, Machine, a_second_lock_counts, all_sections_count, diagram, must_be_caught, trying_counts};

const SPINS: u32 = 4;

/// Explores `cpus` CPUs that take an `L` `rounds` times each.
fn explore<L: RawLock<Cpu> + Send + 'static>(
    machine: impl Fn() -> Machine + Send + Sync + 'static,
    cpus: usize,
    rounds: usize,
    switches: Option<usize>,
) {
    explore_body::<L>(switches, move || all_sections_count::<L>(machine(), cpus, rounds));
}

fn explore_body<L: RawLock<Cpu>>(switches: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = switches;
    builder.max_branches = 10_000;
    builder.check(move || {
        bound_spins(SPINS);
        body();
    });
    let strange: Vec<_> =
        transitions::take().into_iter().filter(|seen| !diagram::<L>().contains(&&**seen)).collect();
    assert!(strange.is_empty(), "not in the diagram of {}: {strange:?}", L::NAME);
}

fn check<L: RawLock<Cpu> + Send + 'static>(cpus: usize, rounds: usize, switches: Option<usize>) {
    explore::<L>(move || Machine::new(cpus), cpus, rounds, switches);
}

#[test]
fn two_cpus_take_tas() {
    check::<RawTas>(2, 1, None);
    check::<RawTas>(2, 2, None);
}

#[test]
fn two_cpus_take_ticket() {
    check::<RawTicket>(2, 1, None);
    check::<RawTicket>(2, 2, None);
}

#[test]
fn two_cpus_take_mcs() {
    check::<RawMcs>(2, 1, None);
    check::<RawMcs>(2, 2, Some(5));
}

#[test]
fn two_cpus_take_qspinlock() {
    check::<RawQSpin>(2, 1, None);
    check::<RawQSpin>(2, 2, Some(4));
}

#[test]
fn two_cpus_take_pvqspinlock() {
    check::<RawPvQSpin>(2, 1, None);
    check::<RawPvQSpin>(2, 2, Some(5));
}

#[test]
fn who_tries_sees_what_was_done_before() {
    explore_body::<RawTas>(None, trying_counts::<RawTas>);
    explore_body::<RawTicket>(None, trying_counts::<RawTicket>);
    explore_body::<RawMcs>(None, trying_counts::<RawMcs>);
    explore_body::<RawQSpin>(None, trying_counts::<RawQSpin>);
    explore_body::<RawPvQSpin>(None, trying_counts::<RawPvQSpin>);
}

#[test]
fn a_node_serves_one_lock_after_another() {
    explore_body::<RawMcs>(Some(3), || a_second_lock_counts::<RawMcs>(Machine::new(2), 2));
    explore_body::<RawQSpin>(Some(3), || a_second_lock_counts::<RawQSpin>(Machine::new(2), 2));
    explore_body::<RawPvQSpin>(Some(3), || a_second_lock_counts::<RawPvQSpin>(Machine::new(2), 2));
    explore_body::<RawPvQSpin>(Some(2), || {
        a_second_lock_counts::<RawPvQSpin>(Machine::that_sleeps_at_once(3), 3)
    });
}

#[test]
fn three_cpus_take_ticket() {
    check::<RawTicket>(3, 1, Some(4));
}

#[test]
fn three_cpus_take_mcs() {
    check::<RawMcs>(3, 1, Some(4));
}

#[test]
fn three_cpus_take_qspinlock() {
    check::<RawQSpin>(3, 1, Some(3));
}

#[test]
fn three_cpus_take_pvqspinlock() {
    check::<RawPvQSpin>(3, 1, Some(3));
}

/// The wait and kick race: a lost wake-up is a deadlock, which loom reports.
#[test]
fn three_cpus_sleep_and_are_kicked() {
    explore::<RawPvQSpin>(|| Machine::that_sleeps_at_once(3), 3, 1, Some(4));
    explore::<RawPvQSpin>(|| Machine::that_sleeps_at_once(2), 2, 1, None);
}

#[test]
fn control_a_relaxed_release_is_caught() {
    must_be_caught("control_a_relaxed_release_is_caught", "Causality violation", || {
        inject(Fault::ReleaseIsRelaxed);
        check::<RawQSpin>(2, 1, None);
    });
}

#[test]
fn control_a_missing_fence_loses_a_wake_up() {
    must_be_caught("control_a_missing_fence_loses_a_wake_up", "deadlock", || {
        inject(Fault::NoFullFence);
        explore::<RawPvQSpin>(|| Machine::that_sleeps_at_once(3), 3, 1, Some(4));
    });
}

#[test]
fn control_sleeping_blindly_loses_a_wake_up() {
    must_be_caught("control_sleeping_blindly_loses_a_wake_up", "deadlock", || {
        explore::<RawPvQSpin>(|| Machine::that_sleeps_blindly(3), 3, 1, Some(4));
    });
}
