//! The robust lock under loom: deaths at every step.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-core --test robust
//! ```
//! A step is an atomic operation or a fence. For every `n`, the victim dies before step `n + 1` of its acquire, section
//! and release, in every execution within the bound of involuntary switches; whoever else wants the lock must get it,
//! and a sleeper that nobody wakes is a deadlock, which loom reports: in these models nobody wakes by himself.
#![cfg(loom)]

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crosslock_core::primitive::model::{Fault, bound_spins, inject};
use model::must_be_caught;
use model::robust::{How, Kind, PLAIN, run};

const SPINS: u32 = 4;

/// Explores one model; gives whether the victim died in any execution.
fn explore(kind: Kind, hows: &'static [How], victim_steps: Option<u32>, switches: usize) -> bool {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    let died = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&died);
    builder.check(move || {
        bound_spins(SPINS);
        if run(kind, hows, victim_steps) {
            seen.store(true, Ordering::Relaxed);
        }
    });
    died.load(Ordering::Relaxed)
}

/// Kills the victim at every step of its visit.
fn die_everywhere(kind: Kind, hows: &'static [How], switches: usize) {
    let mut steps = 0;
    while explore(kind, hows, Some(steps), switches) {
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps only: the victim did not do its work");
    println!("{steps} steps");
}

const TWO: &[How] = &[How::Wait, How::Wait];
const THREE: &[How] = &[How::Wait, How::Wait, How::Wait];

#[test]
fn two_exclude_each_other() {
    for heavy_barrier in [true, false] {
        for time_flies in [true, false] {
            explore(Kind { heavy_barrier, time_flies, ..PLAIN }, TWO, None, 5);
        }
    }
}

#[test]
fn three_exclude_each_other() {
    explore(PLAIN, THREE, None, 3);
    explore(Kind { time_flies: true, ..PLAIN }, THREE, None, 2);
}

#[test]
fn who_gives_up_leaves_no_trace() {
    explore(PLAIN, &[How::Wait, How::GiveUp], None, 5);
    explore(PLAIN, &[How::Wait, How::GiveUp, How::Wait], None, 3);
}

#[test]
fn one_of_two_dies_anywhere() {
    die_everywhere(PLAIN, TWO, 3);
    die_everywhere(Kind { heavy_barrier: false, ..PLAIN }, TWO, 3);
    die_everywhere(Kind { time_flies: true, ..PLAIN }, TWO, 3);
}

#[test]
fn one_of_three_dies_anywhere() {
    die_everywhere(PLAIN, THREE, 2);
}

#[test]
fn one_of_three_dies_anywhere_when_time_flies() {
    die_everywhere(Kind { time_flies: true, ..PLAIN }, THREE, 2);
}

#[test]
fn who_gives_up_dies_anywhere() {
    die_everywhere(PLAIN, &[How::GiveUp, How::Wait, How::Wait], 2);
}

#[test]
fn control_a_relaxed_release_is_caught() {
    must_be_caught("control_a_relaxed_release_is_caught", "Causality violation", || {
        inject(Fault::ReleaseIsRelaxed);
        explore(PLAIN, TWO, None, 3);
    });
}

#[test]
fn control_a_missing_fence_loses_a_wake_up() {
    must_be_caught("control_a_missing_fence_loses_a_wake_up", "deadlock", || {
        inject(Fault::NoFullFence);
        explore(PLAIN, TWO, None, 4);
    });
}

#[test]
fn control_a_silent_death_leaves_a_sleeper() {
    must_be_caught("control_a_silent_death_leaves_a_sleeper", "deadlock", || {
        die_everywhere(Kind { deaths_are_silent: true, ..PLAIN }, TWO, 3);
    });
}
