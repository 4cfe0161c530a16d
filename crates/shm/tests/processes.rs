//! Processes that share nothing but a name use the same locks, each at an address of its own.

mod support;

use std::collections::HashSet;

use crosslock::Segment;
use crosslock::crosslock_core::{RawLock, RawPvQSpin, RawTas};
use support::{Actor, role, say, small};

/// Moves the next mapping, even where addresses are not random.
fn reserve(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(bytes)
}

fn count<L: RawLock<crosslock::SegmentContext>>(segment: &Segment, turns: u64) {
    let counter = segment.spin_mutex::<[u64; 3], L>("counter", [0; 3]).unwrap();
    for _ in 0..turns {
        counter.lock().unwrap().update(|all| all.iter_mut().for_each(|n| *n += 1));
    }
}

fn exact_over_processes<L: RawLock<crosslock::SegmentContext>>(test: &str) {
    const TURNS: u64 = 20_000;

    if let Some((role, options)) = role() {
        let _reserved = reserve(role.parse::<usize>().unwrap() << 24);
        let segment = options.open("s").unwrap();
        say(segment.base().addr());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| count::<L>(&segment, TURNS));
            }
        });
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let start = |role| Actor::start(test, role, directory.path());
    let mut others = ["1", "2", "3"].map(start);
    let mut addresses: HashSet<_> = others.iter_mut().map(Actor::hear).collect();
    addresses.insert(segment.base().addr().to_string());
    assert_eq!(addresses.len(), 4, "all at different addresses: {addresses:?}");
    count::<L>(&segment, TURNS);
    others.into_iter().for_each(Actor::join);
    let counter = segment.open_spin_mutex::<[u64; 3], L>("counter").unwrap();
    assert_eq!(counter.lock().unwrap().get(), [7 * TURNS; 3]);
    assert!(
        segment.participants().unwrap().iter().all(|one| one.pid == std::process::id()),
        "they have left"
    );
}

#[test]
fn a_paravirtual_counter_is_exact() {
    exact_over_processes::<RawPvQSpin>("a_paravirtual_counter_is_exact");
}

#[test]
fn a_test_and_set_counter_is_exact() {
    exact_over_processes::<RawTas>("a_test_and_set_counter_is_exact");
}

/// Eight threads of a process all create or open the same; each adds one.
fn race(options: &crosslock::Options) -> HashSet<[u8; 16]> {
    let barrier = std::sync::Barrier::new(8);
    let run = || {
        barrier.wait();
        let segment = options.open_or_create("raced").unwrap();
        let counter = segment.spin_mutex::<_, RawPvQSpin>("counter", 1000u64).unwrap();
        counter.lock().unwrap().update(|n| *n += 1);
        segment.uuid()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn of_racing_creators_one_wins() {
    if let Some((_, options)) = role() {
        race(&options);
        return;
    }
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let start = |_| Actor::start("of_racing_creators_one_wins", "", directory.path());
        let others = [(); 2].map(start);
        let seen = race(&small(directory.path()));
        others.into_iter().for_each(Actor::join);
        assert_eq!(seen.len(), 1, "one segment");
        let segment = small(directory.path()).open("raced").unwrap();
        assert_eq!(segment.objects().len(), 1);
        assert_eq!(segment.spin_mutex::<_, RawPvQSpin>("counter", 0u64).unwrap().lock().unwrap().get(), 1024);
    }
}

#[test]
fn a_descriptor_leads_to_the_same_segment() {
    let one = crosslock::Options::new().create_memfd("passed").unwrap();
    let other = Segment::from_fd(one.descriptor().unwrap()).unwrap();
    assert_eq!(one.uuid(), other.uuid());
    assert_ne!(one.base(), other.base());
    one.spin_mutex::<_, RawPvQSpin>("n", 7u32).unwrap().lock().unwrap().set(8);
    assert_eq!(other.spin_mutex::<_, RawPvQSpin>("n", 7u32).unwrap().lock().unwrap().get(), 8);
    // Two attachments of one thread are two participants.
    assert_ne!(one.register().unwrap(), other.register().unwrap());

    let file = std::fs::File::from(one.descriptor().unwrap());
    assert!(file.set_len(0).is_err(), "the size is sealed");
    assert!(file.set_len(1 << 30).is_err(), "the size is sealed");
}
