//! Slots and their names: each is given once, and to one who lives.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock::crosslock_core::{CpuId, Name, RobustOps};
use crosslock::{Error, Options, Segment};
use support::names::{ALIVE, RECORDS, header_says, holder, is_dead, me, registered, sleep_until_dead};
use support::{Actor, all_slots_can_be_had, eventually, role, say, small};

#[test]
fn a_slot_has_another_name_each_time() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    let mut names = Vec::new();
    for _ in 0..5 {
        let (name, end) = registered(&segment, || ());
        assert!(names.iter().all(|&old| is_dead(&segment, old)) && !is_dead(&segment, name));
        assert_eq!((name.slot().index(), holder(&segment, 0)), (0, name));
        drop(end);
        eventually("it has left", || segment.participants().unwrap().is_empty());
        names.push(name);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_dead(&segment, Name::new(CpuId::new(0).unwrap(), u32::MAX)));
    assert!(is_dead(&segment, Name::new(CpuId::MAX, 1)), "there is no such slot");
    assert_eq!(segment.context().unwrap().name_of(CpuId::MAX), None);
    assert_eq!(segment.context().unwrap().seats().len(), 1);
}

#[test]
fn a_slot_that_has_no_names_left_is_not_used_again() {
    const LAST: u32 = u32::MAX >> 1;

    let segment = Options::new().participants(1).create_memfd("deaths").unwrap();
    let file = File::from(segment.descriptor().unwrap());
    file.write_all_at(&((LAST - 1) << 1).to_le_bytes(), header_says(&file, RECORDS)).unwrap();
    let attempt =
        || std::thread::scope(|scope| scope.spawn(|| segment.context().unwrap().me()).join().unwrap());
    assert_eq!(attempt().unwrap().incarnation(), LAST);
    eventually("it has left", || segment.participants().unwrap().is_empty());
    assert!(matches!(attempt(), Err(Error::TooManyParticipants { slots: 1 })));
}

#[test]
fn a_thread_has_a_name_in_each_segment() {
    let [one, other] = ["one", "other"].map(|name| Options::new().create_memfd(name).unwrap());
    std::thread::scope(|scope| scope.spawn(|| me(&other)).join().unwrap());
    let (first, second) = (me(&one), me(&other));
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!((me(&one), me(&other)), (first, second));
    }
    let watch = Segment::from_fd(one.descriptor().unwrap()).unwrap();
    assert!(!is_dead(&watch, first));
    drop(one);
    assert!(is_dead(&watch, first), "left with the last handle");
    assert!(!is_dead(&other, second));
    assert_eq!(me(&other), second);
}

#[test]
fn a_segment_closed_by_another_thread_is_left_in_two_steps() {
    let watch = Options::new().participants(2).create_memfd("deaths").unwrap();
    me(&watch);
    for _ in 0..5 {
        let segment = Segment::from_fd(watch.descriptor().unwrap()).unwrap();
        let (name, end) = registered(&segment, || ());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                drop(segment);
            });
            sleep_until_dead(&watch, name);
        });
        let attempt = || std::thread::scope(|scope| scope.spawn(|| watch.register()).join().unwrap());
        // It can leave its list by itself only.
        assert!(matches!(attempt(), Err(Error::TooManyParticipants { slots: 2 })));
        drop(end);
        eventually("its slot is free", || attempt().is_ok());
        eventually("again", || watch.participants().unwrap().len() == 1);
        eventually("the lease, too", || attempt().is_ok());
    }
}

#[test]
fn threads_end_while_the_last_handle_does() {
    let watch = Options::new().participants(4).create_memfd("deaths").unwrap();
    for _ in 0..200 {
        let segment = Segment::from_fd(watch.descriptor().unwrap()).unwrap();
        let threads: Vec<_> = (0..3).map(|_| registered(&segment, || ())).collect();
        let names: Vec<_> = threads.iter().map(|(name, _)| *name).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(segment));
            scope.spawn(|| drop(threads));
        });
        eventually("all are dead", || names.iter().all(|&name| is_dead(&watch, name)));
        all_slots_can_be_had(&watch, 0);
    }
}

#[test]
fn killed_at_any_moment_a_participant_leaves_a_slot() {
    let test = "killed_at_any_moment_a_participant_leaves_a_slot";
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        say("begins");
        loop {
            std::thread::scope(|scope| scope.spawn(|| segment.register().unwrap()).join().unwrap());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).participants(1).create("s").unwrap();
    for delay in 0..60 {
        let mut other = Actor::start(test, "", directory.path());
        other.hear();
        std::thread::sleep(Duration::from_micros(67 * delay));
        other.kill();
        let name = std::thread::scope(|scope| scope.spawn(|| me(&segment)).join().unwrap());
        eventually("it has left", || is_dead(&segment, name));
        eventually("so has its lease", || {
            std::thread::scope(|scope| scope.spawn(|| segment.register().is_ok()).join().unwrap())
        });
    }
}

/// Writes garbage over alive words and records, for as long as `done` is 0.
fn scribble(segment: &Segment, done: &AtomicU32) {
    let file = File::from(segment.descriptor().unwrap());
    let (records, alive) = (header_says(&file, RECORDS), header_says(&file, ALIVE));
    let slots = segment.slots() as u64;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for turn in 0_u64.. {
        if done.load(Ordering::Relaxed) != 0 {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let page = alive + 4096 * (random % slots);
        let garbage = [random.to_le_bytes(), random.wrapping_mul(31).to_le_bytes(), [0xff; 8]].concat();
        file.write_all_at(&garbage[..24], page + 4072).unwrap();
        if turn % 64 == 0 {
            file.write_all_at(&random.to_le_bytes(), records + 448 * (random >> 32) % (448 * slots)).unwrap();
        }
        if turn % 512 == 0 {
            // Free again, or nobody could register any more.
            (0..slots).for_each(|slot| file.write_all_at(&[0; 16], records + 448 * slot).unwrap());
        }
    }
}

#[test]
fn garbage_over_alive_words_and_records_is_harmless() {
    let segment = Options::new().participants(4).create_memfd("hostile").unwrap();
    let done = AtomicU32::new(0);
    let registered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| scribble(&segment, &done));
        let live = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(2) {
                let life = || match segment.context().unwrap().me() {
                    Ok(name) => {
                        registered.fetch_add(1, Ordering::Relaxed);
                        let context = segment.context().unwrap();
                        (0..4).filter_map(CpuId::new).filter_map(|slot| context.name_of(slot)).for_each(
                            |other| {
                                context.sleep(name, 0, other, context.now_ns() + 100_000);
                            },
                        );
                    }
                    Err(Error::TooManyParticipants { .. }) => {}
                    Err(other) => panic!("{other}"),
                };
                std::thread::scope(|scope| scope.spawn(life).join().unwrap());
            }
        };
        let threads = [(); 3].map(|()| scope.spawn(live));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(1, Ordering::Relaxed);
    });
    assert!(registered.load(Ordering::Relaxed) > 100, "{registered:?}");
}
