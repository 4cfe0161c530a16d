//! The reader-writer lock: sharing, exclusion, deaths, poison, time-outs, and what it says of them.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use crosslock::crosslock_core::{Ownership, READS};
use crosslock::{Error, LockError, Options, Release, RwLock, Segment};
use support::{Actor, eventually, forked, role, say, sleep_until_killed, small};

/// Longer than anything takes that need not wait for somebody's end.
const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options::new().participants(32).heap_size(1 << 14)
}

fn segment() -> Segment {
    options().create_memfd("rwlock").unwrap()
}

/// One for each kind of release.
fn segments() -> [Segment; 2] {
    [Release::Store, Release::Exchange]
        .map(|release| options().release(release).create_memfd("rwlock").unwrap())
}

fn waiters(segment: &Segment) -> usize {
    segment.locks().iter().flat_map(|lock| &lock.waiters).filter(|waiter| waiter.party.is_alive).count()
}

fn readers(segment: &Segment) -> usize {
    segment.locks().iter().flat_map(|lock| &lock.readers).filter(|reader| reader.is_alive).count()
}

/// Whether somebody has the gate and waits for readers.
fn a_writer_waits(lock: &RwLock<u64>) -> bool {
    matches!(lock.raw().gate().ownership(), Ok(Ownership::Held(..)))
}

/// What an attempt came to, its guard given back.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Sound,
    OwnerDied,
    Poisoned,
    Nothing,
    Lost,
    Deadlock,
    TooManyReads,
}

fn got<G>(result: Result<Option<G>, LockError<G>>) -> Got {
    match result {
        Ok(Some(_)) => Got::Sound,
        Ok(None) => Got::Nothing,
        Err(LockError::OwnerDied(_)) => Got::OwnerDied,
        Err(LockError::Poisoned(_)) => Got::Poisoned,
        Err(LockError::Failed(Error::NotRecoverable)) => Got::Lost,
        Err(LockError::Failed(Error::Deadlock)) => Got::Deadlock,
        Err(LockError::Failed(Error::TooManyReads)) => Got::TooManyReads,
        Err(other) => panic!("{other}"),
    }
}

fn read(lock: &RwLock<u64>) -> Got {
    got(lock.read().map(Some))
}

fn write(lock: &RwLock<u64>) -> Got {
    got(lock.write().map(Some))
}

/// What one who reads and one who writes are told, with and without waiting.
fn all_are_told(lock: &RwLock<u64>, what: &Got) {
    assert_eq!(read(lock), *what);
    assert_eq!(got(lock.try_read()), *what);
    assert_eq!(got(lock.read_timeout(PATIENCE)), *what);
    assert_eq!(write(lock), *what);
    assert_eq!(got(lock.try_write()), *what);
    assert_eq!(got(lock.write_timeout(PATIENCE)), *what);
}

fn repair(lock: &RwLock<u64>) {
    match lock.write() {
        Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
            suspect.into_guard().mark_consistent();
        }
        other => panic!("{other:?}"),
    }
}

/// A thread that does `inside`, and ends without giving anything back.
fn die_after<R>(inside: impl FnOnce() -> R + Send) {
    std::thread::scope(|scope| scope.spawn(|| std::mem::forget(inside())).join().unwrap());
}

#[test]
fn readers_share() {
    for segment in segments() {
        let lock = segment.rwlock("n", 7u64).unwrap();
        let all_read = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let guard = lock.read_timeout(PATIENCE).unwrap().expect("readers exclude each other");
                    all_read.wait();
                    assert_eq!(guard.get(), 7);
                    assert_eq!(readers(&segment), 4);
                    assert_eq!(got(lock.write_timeout(PATIENCE)), Got::Deadlock);
                    all_read.wait();
                });
            }
        });
        assert_eq!(readers(&segment), 0);
        assert_eq!(write(&lock), Got::Sound);
    }
}

/// Writers write the halves of a value apart; readers never see one without the other.
#[test]
fn writers_exclude_everybody() {
    const WRITES: u64 = 3_000;

    for segment in segments() {
        let lock = segment.rwlock("pair", [0u64; 2]).unwrap();
        let done = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while done.load(Ordering::Relaxed) == 0 {
                        let guard = lock.read().unwrap();
                        let [a, b] = [0, 1].map(|half| guard.words()[half].load(Ordering::Relaxed));
                        assert_eq!(a, b, "a reader while somebody writes");
                        assert!(a >= last);
                        last = a;
                    }
                });
            }
            let writers = [(); 3].map(|()| {
                scope.spawn(|| {
                    for _ in 0..WRITES {
                        let guard = lock.write().unwrap();
                        let n = guard.words()[0].load(Ordering::Relaxed);
                        guard.words()[0].store(n + 1, Ordering::Relaxed);
                        spin_hint();
                        guard.words()[1].store(n + 1, Ordering::Relaxed);
                    }
                })
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(1, Ordering::Relaxed);
        });
        assert_eq!(lock.read().unwrap().get(), [3 * WRITES; 2]);
    }
}

/// What the other process of several tests does.
fn act() -> ! {
    let (role, options) = role().unwrap();
    let segment = options.open("s").unwrap();
    let lock = segment.open_rwlock::<u64>("n").unwrap();
    segment.register().unwrap();
    say("ready");
    match role.as_str() {
        "reader" => {
            let _guard = lock.read().unwrap();
            say("in");
            sleep_until_killed()
        }
        "writer" => {
            let _guard = lock.write().unwrap();
            say("in");
            sleep_until_killed()
        }
        other => panic!("{other}"),
    }
}

/// For each kind of release a segment in a directory of its own, which lives as long as the first value.
fn in_files() -> [(tempfile::TempDir, Segment); 2] {
    [Release::Store, Release::Exchange].map(|release| {
        let directory = tempfile::tempdir().unwrap();
        let segment = small(directory.path()).release(release).create("s").unwrap();
        (directory, segment)
    })
}

fn inside(test: &str, role: &str, directory: &tempfile::TempDir) -> Actor {
    let mut actor = Actor::start(test, role, directory.path());
    assert_eq!(actor.hear(), "ready");
    assert_eq!(actor.hear(), "in");
    actor
}

#[test]
fn a_killed_reader_lets_the_writer_in_and_taints_nothing() {
    const TEST: &str = "a_killed_reader_lets_the_writer_in_and_taints_nothing";
    if role().is_some() {
        act();
    }
    for (directory, segment) in in_files() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        for _ in 0..4 {
            let mut reader = inside(TEST, "reader", &directory);
            assert_eq!(read(&lock), Got::Sound, "readers share");
            assert_eq!(got(lock.try_write()), Got::Nothing);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| (write(&lock), Instant::now()));
                eventually("the writer waits for the reader", || a_writer_waits(&lock));
                let killed = Instant::now();
                reader.kill();
                let (told, when) = writer.join().unwrap();
                assert_eq!(told, Got::Sound);
                assert!(when - killed < Duration::from_secs(5), "after {:?}", when - killed);
            });
            all_are_told(&lock, &Got::Sound);
        }
    }
}

#[test]
fn after_a_killed_writer_all_are_told_until_somebody_repairs() {
    const TEST: &str = "after_a_killed_writer_all_are_told_until_somebody_repairs";
    if role().is_some() {
        act();
    }
    for (directory, segment) in in_files() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        for _ in 0..3 {
            let mut writer = inside(TEST, "writer", &directory);
            assert_eq!(got(lock.try_read()), Got::Nothing);
            assert_eq!(got(lock.try_write()), Got::Nothing);
            std::thread::scope(|scope| {
                let waiting = [scope.spawn(|| read(&lock)), scope.spawn(|| write(&lock))];
                eventually("both wait", || waiters(&segment) == 2);
                writer.kill();
                for waiter in waiting {
                    assert_eq!(waiter.join().unwrap(), Got::OwnerDied);
                }
            });
            all_are_told(&lock, &Got::OwnerDied);
            repair(&lock);
            all_are_told(&lock, &Got::Sound);
        }
    }
}

#[test]
fn a_killed_writer_that_waited_taints_nothing() {
    const TEST: &str = "a_killed_writer_that_waited_taints_nothing";
    if role().is_some() {
        act();
    }
    for (directory, segment) in in_files() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        let reading = lock.read().unwrap();
        let mut writer = Actor::start(TEST, "writer", directory.path());
        assert_eq!(writer.hear(), "ready");
        eventually("it waits for the reader", || a_writer_waits(&lock));
        writer.kill();
        assert_eq!(read(&lock), Got::Sound, "while it reads");
        drop(reading);
        all_are_told(&lock, &Got::Sound);
    }
}

#[test]
fn who_takes_suspect_data_and_leaves_them_so_gives_them_up() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    die_after(|| lock.write().unwrap());
    // A reader repairs nothing, so it gives nothing up.
    match lock.read() {
        Err(LockError::OwnerDied(suspect)) => assert_eq!(suspect.into_guard().get(), 0),
        other => panic!("{other:?}"),
    }
    match lock.write() {
        Err(LockError::OwnerDied(suspect)) => drop(suspect.into_guard()),
        other => panic!("{other:?}"),
    }
    all_are_told(&lock, &Got::Lost);
    assert!(segment.force_unlock("n").unwrap());
    all_are_told(&lock, &Got::OwnerDied);
    repair(&lock);
    all_are_told(&lock, &Got::Sound);
}

#[test]
fn a_dead_reader_in_the_gate_taints_nothing() {
    for segment in segments() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        let cx = segment.context().unwrap();
        // As a reader that dies between taking the gate and giving it back.
        let die = || die_after(|| lock.raw().gate().acquire(cx, cx.me().unwrap()).unwrap());
        die();
        all_are_told(&lock, &Got::Sound);
        let reading = lock.read().unwrap();
        die();
        assert_eq!(segment.repair().unwrap().len(), 1);
        assert_eq!(read(&lock), Got::Sound, "by one who reads already");
        drop(reading);
        all_are_told(&lock, &Got::Sound);
    }
}

#[test]
fn a_dead_reader_does_not_make_poison_worse() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    let cx = segment.context().unwrap();
    poison(&lock);
    die_after(|| lock.raw().gate().acquire(cx, cx.me().unwrap()).unwrap());
    all_are_told(&lock, &Got::Poisoned);
}

#[test]
fn a_writer_that_was_evicted_hides_nothing() {
    for segment in segments() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        let mut evicted = lock.write().unwrap();
        evicted.set(1);
        assert!(segment.force_unlock("n").unwrap());
        assert!(matches!(evicted.unlock(), Err(Error::Corrupted(_))));
        all_are_told(&lock, &Got::OwnerDied);
        repair(&lock);
        // Nor does it speak for the next one.
        let evicted = lock.write().unwrap();
        assert!(segment.force_unlock("n").unwrap());
        let (writes, ended) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                repair(&lock);
                let guard = lock.write().unwrap();
                writes.wait();
                ended.wait();
                // Dies inside.
                std::mem::forget(guard);
            });
            writes.wait();
            assert!(evicted.unlock().is_err());
            ended.wait();
        });
        all_are_told(&lock, &Got::OwnerDied);
    }
}

#[test]
fn a_thread_may_read_again_while_a_writer_waits() {
    for segment in segments() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        let first = lock.read().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| lock.write().unwrap().update(|n| *n += 1));
            eventually("the writer waits", || a_writer_waits(&lock));
            let again = lock.read_timeout(PATIENCE).unwrap().expect("waits for a writer that waits for it");
            assert!(lock.try_read().unwrap().is_some());
            std::thread::scope(|scope| {
                let other = scope.spawn(|| got(lock.try_read()));
                assert_eq!(other.join().unwrap(), Got::Nothing, "who comes later comes after the writer");
            });
            drop(first);
            assert!(!writer.is_finished());
            assert_eq!(again.get(), 0);
            drop(again);
            writer.join().unwrap();
        });
        assert_eq!(lock.read().unwrap().get(), 1);
    }
}

#[test]
fn a_thread_that_waits_for_itself_is_told() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    let reading = lock.read().unwrap();
    assert_eq!(write(&lock), Got::Deadlock);
    assert_eq!(got(lock.try_write()), Got::Nothing);
    drop(reading);
    let writing = lock.write().unwrap();
    assert_eq!(write(&lock), Got::Deadlock);
    assert_eq!(read(&lock), Got::Deadlock);
    assert_eq!(got(lock.read_timeout(PATIENCE)), Got::Deadlock);
    assert_eq!(got(lock.try_read()), Got::Nothing);
    assert_eq!(got(lock.try_write()), Got::Nothing);
    drop(writing);
    all_are_told(&lock, &Got::Sound);
}

#[test]
fn one_reads_under_so_many_locks_and_no_more() {
    let segment = segment();
    let locks: Vec<_> = (0..=READS).map(|n| segment.rwlock(&format!("n{n}"), 0u64).unwrap()).collect();
    let (last, others) = locks.split_last().unwrap();
    let mut guards: Vec<_> = others.iter().map(|lock| lock.read().unwrap()).collect();
    assert_eq!(read(last), Got::TooManyReads);
    assert_eq!(got(last.try_read()), Got::TooManyReads);
    assert_eq!(read(&others[0]), Got::TooManyReads, "each time counts");
    assert_eq!(write(last), Got::Sound, "it writes as before");
    guards.pop();
    assert_eq!(read(last), Got::Sound);
    drop(guards);
    let _again: Vec<_> = (0..READS).map(|_| last.read().unwrap()).collect();
    assert_eq!(read(last), Got::TooManyReads);
}

#[test]
fn a_time_out_leaves_no_trace() {
    const SHORT: Duration = Duration::from_millis(20);

    for segment in segments() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        let reading = lock.read().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let start = Instant::now();
                    assert_eq!(got(lock.write_timeout(SHORT)), Got::Nothing);
                    assert!(start.elapsed() >= SHORT);
                });
            }
        });
        assert_eq!((waiters(&segment), readers(&segment)), (0, 1));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(read(&lock), Got::Sound)).join().unwrap());
        drop(reading);
        let writing = lock.write().unwrap();
        std::thread::scope(|scope| {
            for write in [true, false, true, false] {
                let lock = &lock;
                scope.spawn(move || {
                    let start = Instant::now();
                    let got =
                        if write { got(lock.write_timeout(SHORT)) } else { got(lock.read_timeout(SHORT)) };
                    assert_eq!(got, Got::Nothing);
                    assert!(start.elapsed() >= SHORT);
                });
            }
        });
        assert_eq!((waiters(&segment), readers(&segment)), (0, 0));
        drop(writing);
        all_are_told(&lock, &Got::Sound);
    }
}

fn poison(lock: &RwLock<u64>) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.write().unwrap();
        panic!("inside");
    }));
    panicked.unwrap_err();
}

#[test]
fn a_writer_that_panics_poisons_until_somebody_says_otherwise() {
    for segment in segments() {
        let lock = segment.rwlock("n", 0u64).unwrap();
        poison(&lock);
        all_are_told(&lock, &Got::Poisoned);
        // Accepted, and left as it is: still poisoned, unlike a death not lost.
        match lock.write() {
            Err(LockError::Poisoned(suspect)) => suspect.into_guard().set(1),
            other => panic!("{other:?}"),
        }
        all_are_told(&lock, &Got::Poisoned);
        repair(&lock);
        all_are_told(&lock, &Got::Sound);
    }
}

#[test]
fn a_reader_that_panics_poisons_nothing() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.read().unwrap();
        panic!("inside");
    }));
    panicked.unwrap_err();
    assert_eq!(readers(&segment), 0);
    all_are_told(&lock, &Got::Sound);
}

#[test]
fn poison_and_a_death_are_told_as_a_death() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    poison(&lock);
    die_after(|| match lock.write() {
        Err(LockError::Poisoned(suspect)) => suspect.into_guard(),
        other => panic!("{other:?}"),
    });
    all_are_told(&lock, &Got::OwnerDied);
    repair(&lock);
    all_are_told(&lock, &Got::Sound);
}

#[test]
fn the_child_of_a_fork_has_no_lock() {
    for segment in segments() {
        let lock = segment.rwlock("n", 1u64).unwrap();
        let reading = lock.read().unwrap();
        assert!(forked(|| {
            let copy = &reading;
            let is_dead = catch_unwind(AssertUnwindSafe(|| copy.get())).is_err();
            // It is another participant: its parent reads, it does not.
            is_dead && got(lock.try_write()) == Got::Nothing && read(&lock) == Got::Sound
        }));
        assert_eq!(readers(&segment), 1, "the child has ended nothing of its parent's");
        drop(reading);
        let writing = lock.write().unwrap();
        assert!(forked(|| {
            let copy = &writing;
            let is_dead = catch_unwind(AssertUnwindSafe(|| copy.get())).is_err();
            is_dead && got(lock.try_read()) == Got::Nothing && got(lock.try_write()) == Got::Nothing
        }));
        drop(writing);
        assert!(forked(|| write(&lock) == Got::Sound && read(&lock) == Got::Sound));
        assert!(forked(|| {
            // Ends as it is: without destructors.
            std::mem::forget(lock.read().unwrap());
            true
        }));
        all_are_told(&lock, &Got::Sound);
    }
}

#[test]
fn garbage_in_the_gate_is_an_error() {
    let segment = segment();
    let lock = segment.rwlock("n", 0u64).unwrap();
    let corrupted = |error| matches!(error, Some(LockError::Failed(Error::Corrupted(_))));
    for garbage in [1, 0xffff, u64::MAX, 1 << 63, 0x1_0000] {
        lock.raw().gate().owner_word().store(garbage, Ordering::Relaxed);
        assert!(corrupted(lock.read().err().map(|error| LockError::<()>::Failed(error.into()))));
        assert!(corrupted(lock.write().err().map(|error| LockError::<()>::Failed(error.into()))));
    }
    assert!(segment.force_unlock("n").unwrap());
    drop(lock.write());
    assert_eq!(readers(&segment), 0);
}

/// Processes are killed while they read and write. Whoever is told that all is well finds it so.
#[test]
fn processes_are_killed_at_random() {
    const TEST: &str = "processes_are_killed_at_random";
    if let Some((role, options)) = role() {
        let segment = options.open("s").unwrap();
        let lock = segment.open_rwlock::<[u64; 2]>("pair").unwrap();
        say("begins");
        for turn in 0_u64.. {
            if role == "reader" || turn % 4 != 0 {
                match lock.read() {
                    Ok(guard) => assert_eq!(guard.get()[0], guard.get()[1], "told that all is well"),
                    Err(LockError::OwnerDied(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
                continue;
            }
            let guard = match lock.write() {
                Ok(guard) => {
                    assert_eq!(guard.get()[0], guard.get()[1], "told that all is well");
                    guard
                }
                Err(LockError::OwnerDied(suspect)) => {
                    let mut guard = suspect.into_guard();
                    guard.update(|[a, b]| *b = *a);
                    guard.mark_consistent();
                    guard
                }
                Err(other) => panic!("{other:?}"),
            };
            let n = guard.words()[0].load(Ordering::Relaxed) + 1;
            guard.words()[0].store(n, Ordering::Release);
            (0..turn % 64).for_each(|_| spin_hint());
            guard.words()[1].store(n, Ordering::Release);
        }
    }
    for (directory, segment) in in_files() {
        let lock = segment.rwlock("pair", [0u64; 2]).unwrap();
        let start = |role| {
            let mut actor = Actor::start(TEST, role, directory.path());
            assert_eq!(actor.hear(), "begins");
            actor
        };
        let mut actors = ["reader", "writer", "writer"].map(start);
        let mut last = 0;
        for turn in 0_usize..24 {
            eventually("somebody writes", || match lock.read_timeout(PATIENCE) {
                Ok(Some(guard)) => core::mem::replace(&mut last, guard.get()[0]) < guard.get()[0],
                Ok(None) => panic!("it stands still"),
                Err(LockError::OwnerDied(_)) => false,
                Err(other) => panic!("{other:?}"),
            });
            let roles = ["reader", "writer", "writer"];
            assert!(actors[turn % 3].is_running(), "it failed");
            actors[turn % 3].kill();
            actors[turn % 3] = start(roles[turn % 3]);
        }
        actors.iter_mut().for_each(Actor::kill);
        assert!(matches!(got(lock.write_timeout(PATIENCE)), Got::Sound | Got::OwnerDied));
        assert_eq!(readers(&segment), 0);
    }
}
