//! The robust lock under loom: deaths at every step.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-core --test robust
//! ```
//! A step is an atomic operation or a fence. For every `n`, the victim dies before step `n + 1` of its acquire, section
//! and release, in every execution within the bound of involuntary switches; whoever else wants the lock must get it,
//! and a sleeper that nobody wakes is a deadlock, which loom reports: in these models nobody wakes by himself. Whoever gets the lock
//! must be told of a death exactly if somebody died as its owner.
#![cfg(loom)]

mod model;

use crosslock_core::primitive::model::{Fault, inject};
use model::must_be_caught;
use model::robust::{ALL_LIVE, Fates, Guarded, How, Kind, PLAIN};

/// Explores one model; gives who died in any execution.
fn explore(kind: Kind, hows: &'static [How], fates: Fates, switches: usize) -> Vec<bool> {
    model::robust::explore::<Guarded>(kind, hows, fates, switches)
}

/// Kills participant 0 at every step of its visit.
fn die_everywhere(kind: Kind, hows: &'static [How], switches: usize) {
    model::robust::die_everywhere::<Guarded>(kind, hows, switches);
}

/// Kills two of three.
fn two_die(kind: Kind, victims: [usize; 2], switches: usize, stride: usize) {
    model::robust::two_die::<Guarded>(kind, THREE, victims, switches, stride);
}

const FLYING: Kind = Kind { time_flies: true, ..PLAIN };
const EXCHANGED: Kind = Kind { heavy_barrier: false, ..PLAIN };
const TWO: &[How] = &[How::Wait, How::Wait];
const THREE: &[How] = &[How::Wait, How::Wait, How::Wait];

#[test]
fn two_exclude_each_other() {
    for heavy_barrier in [true, false] {
        for time_flies in [true, false] {
            explore(Kind { heavy_barrier, time_flies, ..PLAIN }, TWO, ALL_LIVE, 5);
        }
    }
}

#[test]
fn three_exclude_each_other() {
    explore(PLAIN, THREE, ALL_LIVE, 3);
    explore(FLYING, THREE, ALL_LIVE, 2);
}

#[test]
fn who_gives_up_leaves_no_trace() {
    explore(PLAIN, &[How::Wait, How::GiveUp], ALL_LIVE, 5);
    explore(PLAIN, &[How::Wait, How::GiveUp, How::Wait], ALL_LIVE, 3);
}

/// A lock is reserved for one that gives up at that moment.
#[test]
fn who_gives_up_when_time_flies_leaves_no_trace() {
    explore(FLYING, &[How::Wait, How::GiveUp], ALL_LIVE, 5);
    explore(FLYING, &[How::Wait, How::GiveUp, How::Wait], ALL_LIVE, 2);
}

#[test]
fn who_tries_disturbs_nobody() {
    explore(PLAIN, &[How::Wait, How::Try], ALL_LIVE, 5);
    explore(PLAIN, &[How::Wait, How::Try, How::Wait], ALL_LIVE, 2);
    explore(FLYING, &[How::Wait, How::Try, How::Wait], ALL_LIVE, 2);
}

#[test]
fn one_of_two_dies_anywhere() {
    die_everywhere(PLAIN, TWO, 3);
    die_everywhere(EXCHANGED, TWO, 3);
    die_everywhere(FLYING, TWO, 3);
}

#[test]
fn one_of_three_dies_anywhere() {
    die_everywhere(PLAIN, THREE, 2);
}

#[test]
fn one_of_three_dies_anywhere_when_time_flies() {
    die_everywhere(FLYING, THREE, 2);
}

#[test]
fn who_gives_up_dies_anywhere() {
    die_everywhere(PLAIN, &[How::GiveUp, How::Wait, How::Wait], 2);
}

#[test]
fn who_gives_up_when_time_flies_dies_anywhere() {
    die_everywhere(FLYING, &[How::GiveUp, How::Wait, How::Wait], 2);
}

#[test]
fn who_tries_dies_anywhere() {
    die_everywhere(PLAIN, &[How::Try, How::Wait, How::Wait], 2);
}

#[test]
fn who_dies_is_found_by_one_who_tries() {
    die_everywhere(PLAIN, &[How::Wait, How::Try], 3);
    die_everywhere(PLAIN, &[How::Wait, How::Try, How::Wait], 2);
}

/// All who wait, and all who come, are told that the data are lost.
#[test]
fn data_that_are_given_up_are_so_for_all() {
    die_everywhere(PLAIN, &[How::Wait, How::Forsake], 3);
    die_everywhere(PLAIN, &[How::Wait, How::Forsake, How::Wait], 2);
}

/// The one that takes over from a dead one dies, too.
#[test]
fn an_owner_and_a_waiter_die_anywhere() {
    two_die(PLAIN, [0, 1], 1, 1);
    two_die(FLYING, [0, 1], 1, 1);
}

#[test]
fn two_waiters_die_anywhere() {
    two_die(PLAIN, [1, 2], 1, 5);
    two_die(FLYING, [1, 2], 1, 5);
}

/// Fewer steps of the first, and more switches.
#[test]
fn one_dies_here_and_another_anywhere() {
    two_die(PLAIN, [0, 1], 2, 36);
}

#[test]
fn control_a_relaxed_release_is_caught() {
    must_be_caught("control_a_relaxed_release_is_caught", "Causality violation", || {
        inject(Fault::ReleaseIsRelaxed);
        explore(PLAIN, TWO, ALL_LIVE, 3);
    });
}

#[test]
fn control_a_missing_fence_loses_a_wake_up() {
    must_be_caught("control_a_missing_fence_loses_a_wake_up", "deadlock", || {
        inject(Fault::NoFullFence);
        explore(PLAIN, TWO, ALL_LIVE, 4);
    });
}

#[test]
fn control_a_silent_death_leaves_a_sleeper() {
    must_be_caught("control_a_silent_death_leaves_a_sleeper", "deadlock", || {
        die_everywhere(Kind { deaths_are_silent: true, ..PLAIN }, TWO, 3);
    });
}
