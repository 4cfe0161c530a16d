//! Every lock under loom: all interleavings, and all the stale reads that the memory model allows.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-core --test loom
//! ```
//! Bounds: two CPUs that take the lock once run to the end, without any bound but on spinning. With more CPUs or
//! rounds, every execution with at most the given number of involuntary switches is explored. In all, the
//! schedule branches during the first [`SPINS`] turns of spin loops of an execution; a longer spin
//! reaches no state that a shorter one does not.
#![cfg(loom)]

mod model;

use std::collections::BTreeSet;
use std::process::Command;

use crosslock_core::primitive::model::{Fault, bound_spins, inject};
use crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket, transitions};
use model::{Cpu, Machine, all_sections_count};

const SPINS: u32 = 4;

/// Explores `cpus` CPUs that take an `L` `rounds` times each; gives the changes of its word that were seen.
fn explore<L: RawLock<Cpu> + Send + 'static>(
    machine: impl Fn() -> Machine + Send + Sync + 'static,
    cpus: usize,
    rounds: usize,
    switches: Option<usize>,
) -> BTreeSet<String> {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = switches;
    builder.max_branches = 10_000;
    drop(transitions::take());
    builder.check(move || {
        bound_spins(SPINS);
        all_sections_count::<L>(machine(), cpus, rounds);
    });
    transitions::take()
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
    check::<RawQSpin>(2, 2, None);
}

#[test]
fn two_cpus_take_pvqspinlock() {
    check::<RawPvQSpin>(2, 1, None);
    check::<RawPvQSpin>(2, 2, Some(5));
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
    check::<RawQSpin>(3, 1, Some(4));
}

/// The wait and kick race: a lost wake-up is a deadlock, which loom reports.
#[test]
fn three_cpus_sleep_and_are_kicked() {
    explore::<RawPvQSpin>(|| Machine::that_sleeps_at_once(3), 3, 1, Some(4));
    explore::<RawPvQSpin>(|| Machine::that_sleeps_at_once(2), 2, 1, None);
}

/// The word changes in these ways and in no other: the state diagram of `qspinlock`, with the changes of
/// tail and pending that can come in between.
#[test]
fn four_cpus_make_every_transition_of_qspinlock() {
    let diagram = [
        "0,0,0 -> 0,0,1", // uncontended acquire
        "0,0,1 -> 0,0,0", // release
        "0,0,1 -> 0,1,1", // second contender
        "0,1,1 -> 0,1,0", // release
        "0,1,0 -> 0,0,1", // pending takes over
        "0,0,0 -> 0,1,0", // pending set just after the release
        "0,1,1 -> 0,1,1", // a third finds pending set ...
        "0,1,0 -> 0,1,0",
        "0,0,0 -> n,0,0", // ... and queues, whatever the rest of the word is
        "0,0,1 -> n,0,1",
        "0,1,0 -> n,1,0",
        "0,1,1 -> n,1,1",
        "n,0,0 -> m,0,0",
        "n,0,1 -> m,0,1",
        "n,1,0 -> m,1,0",
        "n,1,1 -> m,1,1",
        "n,0,1 -> n,0,0", // release
        "n,1,1 -> n,1,0",
        "n,1,0 -> n,0,1", // pending takes over
        "n,0,0 -> 0,0,1", // queue head, alone
        "n,0,0 -> n,0,1", // queue head, others behind
        "n,0,0 -> n,1,0", // pending set too late ...
        "n,0,1 -> n,1,1",
        "n,1,0 -> n,0,0", // ... and taken back
        "n,1,1 -> n,0,1",
        "n,1,0 -> n,1,1", // queue head, while such a late pending passes
        "n,1,0 -> n,1,0", // a fourth finds it set
        "n,1,1 -> n,1,1",
    ];
    let seen = explore::<RawQSpin>(|| Machine::new(4), 4, 1, Some(3));
    assert_eq!(seen, diagram.map(String::from).into());
}

/// The same for the paravirtual lock: 3 is SLOW, pending means that the head spins.
#[test]
fn three_cpus_make_every_transition_of_pvqspinlock() {
    let diagram = [
        "0,0,0 -> 0,0,1", // uncontended acquire
        "0,0,1 -> 0,0,0", // release
        "0,0,0 -> n,0,0", // queues, whatever the rest of the word is
        "0,0,1 -> n,0,1",
        "n,0,0 -> m,0,0",
        "n,0,1 -> m,0,1",
        "n,0,3 -> m,0,3",
        "n,1,0 -> m,1,0",
        "n,1,1 -> m,1,1",
        "n,0,0 -> n,0,1", // steals: nobody spins at the head
        "n,0,0 -> n,1,0", // head starts to spin: no stealing
        "n,0,1 -> n,1,1",
        "n,0,3 -> n,1,3",
        "n,1,0 -> n,0,1", // head takes the lock
        "n,0,1 -> 0,0,1", // nobody behind: clears the tail
        "n,1,0 -> n,0,0", // head gives up spinning
        "n,1,1 -> n,0,1",
        "n,1,3 -> n,0,3",
        "n,0,1 -> n,0,3", // head, or owner for it, asks to be kicked
        "n,1,1 -> n,1,3",
        "n,0,0 -> n,0,3", // too late, the lock is free: the head has it
        "n,0,3 -> n,0,1",
        "n,0,1 -> n,0,0", // release
        "n,1,1 -> n,1,0",
        "n,0,3 -> n,0,0", // release, and kick
        "n,1,3 -> n,1,0",
    ];
    let seen = explore::<RawPvQSpin>(|| Machine::new(3), 3, 1, Some(4));
    assert_eq!(seen, diagram.map(String::from).into());
}

/// Runs `broken` in a process of its own (a deadlock in a model ends in an abort) and expects loom's `report`.
fn must_be_caught(test: &str, report: &str, broken: impl FnOnce()) {
    const CONTROL: &str = "CROSSLOCK_NEGATIVE_CONTROL";
    if std::env::var_os(CONTROL).is_some() {
        return broken();
    }
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this).args(["--exact", test, "--nocapture"]).env(CONTROL, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned() + &String::from_utf8_lossy(&child.stdout);
    assert!(!child.status.success(), "{test}: the fault was not caught");
    assert!(said.contains(report), "{test}: caught otherwise than by {report:?}:\n{said}");
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
