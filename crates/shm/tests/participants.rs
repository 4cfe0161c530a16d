//! Slots: taken by threads, given back by them, by the last handle, or by the kernel.

mod support;

use crosslock::crosslock_core::CpuId;
use crosslock::crosslock_core::RawPvQSpin;
use crosslock::{Error, Liveness, Options, Segment};
use support::{Actor, eventually, role, say, sleep_until_killed, small};

fn segment() -> Segment {
    Options::new().participants(4).create_memfd("participants").unwrap()
}

#[test]
fn a_thread_frees_its_slot_at_its_end() {
    let segment = segment();
    for turn in 0..20 {
        let register = || {
            let slot = segment.register().unwrap();
            assert_eq!(segment.register().unwrap(), slot, "once is enough");
            slot
        };
        let slot = std::thread::scope(|scope| {
            std::thread::Builder::new().name(format!("t{turn}")).spawn_scoped(scope, register).unwrap().join()
        });
        assert_eq!(slot.unwrap(), CpuId::new(0).unwrap());
        eventually("the slot is free", || segment.participants().unwrap().is_empty());
    }
    segment.register().unwrap();
    assert_eq!(segment.participants().unwrap()[0].incarnation, 21);
}

#[test]
fn a_participant_describes_itself() {
    let segment = segment();
    let participant = std::thread::scope(|scope| {
        let run = || {
            segment.register().unwrap();
            segment.participants().unwrap().pop().unwrap()
        };
        let name = "a name of more than 24 bytes".to_owned();
        std::thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    assert_eq!(participant.name, "a name of more than 24 b");
    assert_eq!(participant.pid, std::process::id());
    assert_eq!((participant.liveness, participant.depth), (Liveness::Alive, 0));
    assert_ne!(participant.tid, participant.pid);
}

#[test]
fn the_last_handle_frees_all_slots() {
    let segment = segment();
    let watch = Segment::from_fd(segment.descriptor().unwrap()).unwrap();
    segment.register().unwrap();
    assert_eq!(watch.participants().unwrap().len(), 1);
    let clone = segment.clone();
    drop(segment);
    assert_eq!(watch.participants().unwrap().len(), 1);
    drop(clone);
    assert_eq!(watch.participants().unwrap().len(), 0);
}

#[test]
fn one_too_many_waits_without_a_slot() {
    let segment = segment();
    let counter = segment.spin_mutex::<_, RawPvQSpin>("counter", 0u64).unwrap();
    let registered = std::sync::Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                segment.register().unwrap();
                registered.wait();
                (0..2000).for_each(|_| counter.lock().unwrap().update(|n| *n += 1));
                registered.wait();
            });
        }
        scope.spawn(|| {
            registered.wait();
            assert!(matches!(segment.register(), Err(Error::TooManyParticipants { slots: 4 })));
            (0..2000).for_each(|_| counter.lock().unwrap().update(|n| *n += 1));
            registered.wait();
        });
        registered.wait();
        registered.wait();
    });
    assert_eq!(counter.lock().unwrap().get(), 10_000);
}

#[test]
fn the_slot_of_the_dead_is_used_again() {
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        say(segment.register().unwrap().index());
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).participants(2).create("s").unwrap();
    assert_eq!(segment.register().unwrap().index(), 0);
    for turn in 1..4 {
        let mut other = Actor::start("the_slot_of_the_dead_is_used_again", "", directory.path());
        assert_eq!(other.hear(), "1");
        let participant = &segment.participants().unwrap()[1];
        assert_eq!((participant.incarnation, participant.liveness), (turn, Liveness::Alive));
        other.kill();
        assert_eq!(segment.participants().unwrap()[1].liveness, Liveness::Dead);
    }
}

#[test]
fn a_slot_of_which_the_queue_may_know_is_not_used_again() {
    let test = "a_slot_of_which_the_queue_may_know_is_not_used_again";
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        say(segment.register().unwrap().index());
        let _guard = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap().lock().map(|_| ());
        unreachable!("the lock is held");
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).participants(2).create("s").unwrap();
    segment.register().unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    let guard = mutex.lock().unwrap();
    let mut waiter = Actor::start(test, "", directory.path());
    assert_eq!(waiter.hear(), "1");
    eventually("it waits", || segment.participants().unwrap()[1].depth == 1);
    waiter.kill();
    assert_eq!(segment.participants().unwrap()[1].liveness, Liveness::Wedged);
    let refused = std::thread::scope(|scope| scope.spawn(|| segment.register()).join()).unwrap();
    assert!(matches!(refused, Err(Error::TooManyParticipants { slots: 2 })));
    drop(guard);
}

#[test]
fn counters_outlive_those_who_count() {
    use crosslock::crosslock_core::{Context, Event};

    let segment = segment();
    for _ in 0..3 {
        let count = || {
            segment.register().unwrap();
            segment.context().unwrap().count(Event::PvWaitAgain, 5);
        };
        std::thread::scope(|scope| scope.spawn(count).join().unwrap());
        eventually("the slot is free", || segment.participants().unwrap().is_empty());
    }
    segment.context().unwrap().count(Event::PvWaitAgain, 1);
    assert_eq!(segment.counters()[Event::PvWaitAgain.index()], 15, "the unregistered do not count");
}
