//! The robust mutex: exclusion, deaths, poison, time-outs, and what it says of them.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crosslock::crosslock_core::Ownership;
use crosslock::{Error, Guard, LockError, Mutex, Options, Segment};
use support::{Actor, eventually, forked, role, say, sleep_until_killed, small};

fn segment() -> Segment {
    Options::new().create_memfd("mutex").unwrap()
}

fn expect_owner_died<'a, T>(
    locked: Result<Guard<'a, T>, LockError<Guard<'a, T>>>,
) -> crosslock::Suspect<Guard<'a, T>> {
    match locked {
        Err(LockError::OwnerDied(suspect)) => suspect,
        Ok(_) => panic!("nobody told of the death"),
        Err(other) => panic!("{other}"),
    }
}

fn waiters(segment: &Segment) -> usize {
    segment.locks().iter().flat_map(|lock| &lock.waiters).filter(|waiter| waiter.party.is_alive).count()
}

/// Leaves the mutex in the hands of a thread that has ended.
fn die_inside(mutex: &Mutex<u64>) {
    std::thread::scope(|scope| scope.spawn(|| std::mem::forget(mutex.lock().unwrap())).join().unwrap());
}

#[test]
fn threads_exclude_each_other() {
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    mutex.lock().unwrap().update(|n| *n += 1);
                }
            });
        }
    });
    assert_eq!(mutex.lock().unwrap().get(), 80_000);
    assert_eq!(mutex.raw().ownership(), Ok(Ownership::Free(Default::default())));
    assert!(mutex.raw().stats().acquisitions > 80_000);
}

#[test]
fn the_next_one_is_told_of_a_death_and_repairs() {
    let segment = segment();
    let mutex = segment.mutex("n", 5u64).unwrap();
    die_inside(&mutex);
    let mut guard = expect_owner_died(mutex.lock()).into_guard();
    guard.set(6);
    guard.mark_consistent();
    drop(guard);
    assert_eq!(mutex.lock().unwrap().get(), 6);
}

#[test]
fn who_does_not_want_to_know_gives_it_back() {
    let segment = segment();
    let mutex = segment.mutex("n", 5u64).unwrap();
    die_inside(&mutex);
    assert!(matches!(mutex.lock().map(drop).map_err(Error::from), Err(Error::OwnerDied)));
    let suspect = expect_owner_died(mutex.lock());
    assert_eq!(suspect.guard().get(), 5);
    drop(suspect);
    drop(expect_owner_died(mutex.lock()));
}

#[test]
fn who_takes_the_data_and_leaves_them_so_gives_them_up() {
    let segment = segment();
    let mutex = segment.mutex("n", 5u64).unwrap();
    die_inside(&mutex);
    std::thread::scope(|scope| {
        let guard = expect_owner_died(mutex.lock()).into_guard();
        let waiter = scope.spawn(|| mutex.lock().map(drop).map_err(Error::from));
        eventually("it waits", || waiters(&segment) == 1);
        drop(guard);
        assert!(matches!(waiter.join().unwrap(), Err(Error::NotRecoverable)));
    });
    assert!(matches!(mutex.lock(), Err(LockError::Failed(Error::NotRecoverable))));
    assert!(matches!(mutex.try_lock(), Err(LockError::Failed(Error::NotRecoverable))));
}

#[test]
fn a_panic_poisons_until_somebody_says_otherwise() {
    let segment = segment();
    let mutex = segment.mutex("n", 5u64).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = mutex.lock().unwrap();
        guard.set(7);
        panic!("inside");
    }));
    panicked.unwrap_err();
    for _ in 0..2 {
        match mutex.lock() {
            Err(LockError::Poisoned(suspect)) => assert_eq!(suspect.into_guard().get(), 7),
            other => panic!("{other:?}"),
        }
    }
    match mutex.lock() {
        Err(LockError::Poisoned(suspect)) => suspect.into_guard().mark_consistent(),
        other => panic!("{other:?}"),
    }
    assert_eq!(mutex.lock().unwrap().get(), 7);
}

#[test]
fn a_lock_taken_while_unwinding_is_not_poisoned() {
    struct LocksOnDrop<'a>(&'a Mutex<u64>);
    impl Drop for LocksOnDrop<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().update(|n| *n += 1);
        }
    }
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _locks = LocksOnDrop(&mutex);
        panic!("outside");
    }));
    panicked.unwrap_err();
    assert_eq!(mutex.lock().unwrap().get(), 1);
}

#[test]
fn a_thread_that_waits_for_itself_is_told() {
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let _guard = mutex.lock().unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::Failed(Error::Deadlock))));
    assert!(mutex.try_lock().unwrap().is_none());
}

#[test]
fn a_time_out_leaves_no_trace() {
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let guard = mutex.lock().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let start = Instant::now();
                assert!(mutex.lock_timeout(Duration::from_millis(20)).unwrap().is_none());
                assert!(start.elapsed() >= Duration::from_millis(20));
            });
        }
    });
    assert_eq!(waiters(&segment), 0);
    drop(guard);
    assert!(mutex.lock_timeout(Duration::ZERO).unwrap().is_some());
    assert!(mutex.try_lock().unwrap().is_some());
}

#[test]
fn a_killed_owner_and_a_killed_waiter_stop_nobody() {
    const TEST: &str = "a_killed_owner_and_a_killed_waiter_stop_nobody";
    if let Some((role, options)) = role() {
        let segment = options.open("s").unwrap();
        let mutex = segment.mutex("n", 0u64).unwrap();
        segment.register().unwrap();
        say("ready");
        let _guard = mutex.lock().unwrap();
        say(format!("{role} has it"));
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    for _ in 0..5 {
        let mut owner = Actor::start(TEST, "owner", directory.path());
        assert_eq!(owner.hear(), "ready");
        assert_eq!(owner.hear(), "owner has it");
        let mut waiter = Actor::start(TEST, "waiter", directory.path());
        assert_eq!(waiter.hear(), "ready");
        eventually("the waiter sits", || waiters(&segment) == 1);
        std::thread::scope(|scope| {
            let mine = scope.spawn(|| {
                let mut guard = expect_owner_died(mutex.lock()).into_guard();
                guard.mark_consistent();
                Instant::now()
            });
            eventually("both wait", || waiters(&segment) == 2);
            waiter.kill();
            let killed = Instant::now();
            owner.kill();
            let recovered = mine.join().unwrap() - killed;
            assert!(recovered < Duration::from_secs(5), "took {recovered:?}");
        });
    }
    drop(mutex.lock().unwrap());
}

#[test]
fn the_child_of_a_fork_has_no_lock() {
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let mut guard = mutex.lock().unwrap();
    guard.set(1);
    assert!(forked(|| {
        // A copy of the parent's guard: its drop must not release the parent's lock.
        let copy = &guard;
        let dead = catch_unwind(AssertUnwindSafe(|| copy.get())).is_err();
        dead && mutex.try_lock().unwrap().is_none()
    }));
    assert!(mutex.try_lock().unwrap().is_none());
    drop(guard);
    assert!(forked(|| mutex.lock().unwrap().get() == 1));
    assert!(mutex.try_lock().unwrap().is_some());
}

#[test]
fn garbage_in_the_word_is_an_error() {
    use crosslock::crosslock_core::primitive::Ordering;
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    for garbage in [1, 0xffff, u64::MAX, 1 << 63, 0x1_0000] {
        mutex.raw().owner_word().store(garbage, Ordering::Relaxed);
        assert!(matches!(mutex.lock(), Err(LockError::Failed(Error::Corrupted(_)))), "{garbage:#x}");
    }
    assert!(segment.force_unlock("n").unwrap());
    drop(expect_owner_died(mutex.lock()));
}

#[test]
fn a_lock_that_was_taken_away_is_not_released() {
    let segment = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let guard = mutex.lock().unwrap();
    assert!(segment.force_unlock("n").unwrap());
    assert!(matches!(guard.unlock(), Err(Error::Corrupted(_))));
    drop(expect_owner_died(mutex.lock()));
}
