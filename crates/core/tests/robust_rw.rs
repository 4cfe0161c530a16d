//! The robust reader-writer lock under loom: sharing, exclusion, and deaths of readers and writers at every step.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-core --test robust_rw
//! ```
//! As in `robust.rs`. Besides, everyone who gets the lock must be told of a death exactly if a writer died while its
//! name was in `writing`: who reads taints nothing by its death, nor does a writer before it begins or after its end.
#![cfg(loom)]

mod model;

use crosslock_core::primitive::model::{Fault, inject};
use model::must_be_caught;
use model::robust::{ALL_LIVE, Kind, PLAIN};
use model::robust_rw::{GuardedRw, How};

const FLYING: Kind = Kind { time_flies: true, ..PLAIN };
const EXCHANGED: Kind = Kind { heavy_barrier: false, ..PLAIN };

fn explore(kind: Kind, hows: &'static [How], switches: usize) {
    model::robust::explore::<GuardedRw>(kind, hows, ALL_LIVE, switches);
}

/// Kills participant 0 at every step of its visit.
fn die_everywhere(kind: Kind, hows: &'static [How], switches: usize) {
    model::robust::die_everywhere::<GuardedRw>(kind, hows, switches);
}

/// Kills two of three.
fn two_die(hows: &'static [How], victims: [usize; 2], switches: usize, stride: usize) {
    model::robust::two_die::<GuardedRw>(PLAIN, hows, victims, switches, stride);
}

#[test]
fn a_reader_and_a_writer_exclude_each_other() {
    for kind in [PLAIN, EXCHANGED, FLYING] {
        explore(kind, &[How::Read, How::Write], 4);
        explore(kind, &[How::Write, How::Write], 3);
    }
}

#[test]
fn a_reader_reads_again_while_a_writer_waits() {
    explore(PLAIN, &[How::ReadTwice, How::Write], 4);
    explore(PLAIN, &[How::ReadTwice, How::Write, How::Read], 2);
}

#[test]
fn two_readers_and_a_writer_exclude_each_other() {
    explore(PLAIN, &[How::Read, How::Read, How::Write], 2);
    explore(EXCHANGED, &[How::Read, How::Read, How::Write], 2);
}

#[test]
fn a_reader_and_two_writers_exclude_each_other() {
    explore(PLAIN, &[How::Read, How::Write, How::Write], 2);
    explore(EXCHANGED, &[How::Read, How::Write, How::Write], 2);
}

#[test]
fn who_gives_up_or_tries_leaves_no_trace() {
    for pair in [
        &[How::ReadOrLeave, How::Write],
        &[How::Read, How::WriteOrLeave],
        &[How::TryRead, How::Write],
        &[How::Read, How::TryWrite],
        &[How::TryRead, How::TryWrite],
    ] {
        explore(PLAIN, pair, 4);
    }
    explore(PLAIN, &[How::Read, How::WriteOrLeave, How::Write], 2);
    explore(PLAIN, &[How::Read, How::ReadOrLeave, How::Write], 2);
}

#[test]
fn one_of_a_reader_and_a_writer_dies_anywhere() {
    for kind in [PLAIN, EXCHANGED] {
        die_everywhere(kind, &[How::Read, How::Write], 3);
        die_everywhere(kind, &[How::Write, How::Read], 3);
        die_everywhere(kind, &[How::Write, How::Write], 3);
    }
}

#[test]
fn one_who_gives_up_or_tries_dies_anywhere() {
    die_everywhere(PLAIN, &[How::ReadOrLeave, How::Write], 3);
    die_everywhere(PLAIN, &[How::WriteOrLeave, How::Read], 3);
    die_everywhere(PLAIN, &[How::TryRead, How::Write], 3);
    die_everywhere(PLAIN, &[How::TryWrite, How::Read], 3);
}

#[test]
fn a_reader_of_three_dies_anywhere() {
    die_everywhere(PLAIN, &[How::Read, How::Write, How::Read], 1);
    die_everywhere(PLAIN, &[How::Read, How::Write, How::Write], 1);
    die_everywhere(PLAIN, &[How::ReadTwice, How::Write, How::Read], 1);
    // Who reads again finds the gate of a writer that died when it waited.
    die_everywhere(PLAIN, &[How::Write, How::ReadTwice, How::TryWrite], 1);
}

#[test]
fn a_writer_of_three_dies_anywhere() {
    die_everywhere(PLAIN, &[How::Write, How::Write, How::Read], 1);
    die_everywhere(PLAIN, &[How::Write, How::Read, How::Read], 1);
    die_everywhere(PLAIN, &[How::Write, How::TryWrite, How::ReadOrLeave], 1);
}

/// Of one who repairs nothing, of one who panics, and of those who come after them.
#[test]
fn who_leaves_the_data_in_doubt_dies_anywhere() {
    die_everywhere(PLAIN, &[How::Poison, How::Read, How::Write], 1);
    die_everywhere(PLAIN, &[How::Read, How::Poison, How::Read], 1);
    die_everywhere(PLAIN, &[How::Write, How::Forsake, How::Read], 1);
    die_everywhere(PLAIN, &[How::Write, How::Poison, How::Read], 1);
}

/// The one that finds the dead one dies, too, before it has given the data up, or just after.
#[test]
fn two_writers_die_anywhere() {
    two_die(&[How::Write, How::Forsake, How::Read], [0, 1], 0, 1);
    two_die(&[How::Write, How::Forsake, How::Read], [0, 1], 1, 8);
    two_die(&[How::Read, How::Write, How::Forsake], [1, 2], 1, 16);
}

#[test]
fn a_reader_and_a_writer_die_anywhere() {
    two_die(&[How::Read, How::Write, How::Read], [0, 1], 1, 6);
    two_die(&[How::Write, How::Read, How::Write], [1, 2], 1, 16);
}

/// Nobody sleeps here, so that what is missed is the exclusion [R].
#[test]
fn control_without_a_barrier_a_reader_and_a_writer_meet() {
    must_be_caught("control_without_a_barrier_a_reader_and_a_writer_meet", "Causality violation", || {
        inject(Fault::NoFullFence);
        explore(PLAIN, &[How::TryRead, How::TryWrite], 4);
    });
}

/// Of a writer that sleeps on a reader [D], or of the reader at the gate.
#[test]
fn control_without_a_barrier_a_wake_up_is_lost() {
    must_be_caught("control_without_a_barrier_a_wake_up_is_lost", "deadlock", || {
        inject(Fault::NoFullFence);
        explore(PLAIN, &[How::Write, How::Write], 4);
    });
}

#[test]
fn control_a_reader_that_is_not_counted_is_met() {
    must_be_caught("control_a_reader_that_is_not_counted_is_met", "Causality violation", || {
        explore(Kind { first_is_hidden: true, ..PLAIN }, &[How::TryRead, How::TryWrite], 4);
    });
}

#[test]
fn control_a_silent_death_leaves_a_writer_asleep() {
    must_be_caught("control_a_silent_death_leaves_a_writer_asleep", "deadlock", || {
        die_everywhere(Kind { deaths_are_silent: true, ..PLAIN }, &[How::Read, How::Write], 3);
    });
}
