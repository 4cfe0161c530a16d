//! The child of a fork is somebody else.

mod support;

use crosslock::crosslock_core::RawPvQSpin;
use crosslock::crosslock_core::primitive::{AtomicU32, Ordering::Relaxed};
use crosslock::{Liveness, Options};
use support::{Actor, eventually, forked, role, say, sleep_until_killed, small};

#[test]
fn a_child_is_not_its_parent() {
    let segment = Options::new().create_memfd("fork").unwrap();
    let parents = segment.register().unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    assert!(forked(|| {
        let alive = segment.participants().unwrap();
        let before = alive.len() == 1 && alive[0].liveness == Liveness::Alive;
        mutex.lock().unwrap().update(|n| *n += 1);
        let mine = segment.register().unwrap();
        let all = segment.participants().unwrap();
        before && mine != parents && all.len() == 2 && all.iter().all(|p| p.liveness == Liveness::Alive)
    }));
    let all = segment.participants().unwrap();
    assert_eq!(all.iter().map(|p| p.liveness).collect::<Vec<_>>(), [Liveness::Alive, Liveness::Dead]);
    assert_eq!(all[0].pid, std::process::id());
    assert_eq!(segment.register().unwrap(), parents);
    assert_eq!(mutex.lock().unwrap().get(), 1);
}

#[test]
fn a_child_that_closes_the_segment_takes_nothing_from_its_parent() {
    let segment = Options::new().create_memfd("fork").unwrap();
    segment.register().unwrap();
    let mut handle = Some(segment.clone());
    let mut last = Some(segment);
    assert!(forked(|| {
        handle = None;
        last = None;
        true
    }));
    let segment = last.unwrap();
    assert_eq!(segment.participants().unwrap()[0].liveness, Liveness::Alive);
    assert!(segment.is_attached_by_anyone().unwrap());
}

#[test]
fn a_childs_copy_of_a_guard_is_dead() {
    let segment = Options::new().create_memfd("fork").unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    let mut guard = Some(mutex.lock().unwrap());
    assert!(forked(|| {
        guard = None;
        mutex.is_locked() && mutex.try_lock().unwrap().is_none()
    }));
    assert!(mutex.is_locked());
    drop(guard);
    assert!(!mutex.is_locked());
}

#[test]
fn a_child_does_not_keep_its_parent_alive() {
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        segment.register().unwrap();
        // SAFETY: the child does nothing but wait for its end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            sleep_until_killed();
        }
        say(child);
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let mut parent = Actor::start("a_child_does_not_keep_its_parent_alive", "", directory.path());
    let child: i32 = parent.hear().parse().unwrap();
    assert_eq!(segment.participants().unwrap()[0].liveness, Liveness::Alive);
    parent.kill();
    // Not at once: the child may not even have run yet.
    eventually("the parent is dead", || segment.participants().unwrap()[0].liveness == Liveness::Dead);
    let child = rustix::process::Pid::from_raw(child).unwrap();
    // It ends by itself, too, when its input does.
    let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
}

#[test]
fn forks_amid_registrations_do_not_hang() {
    let segment = Options::new().create_memfd("fork").unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Relaxed) == 0 {
                    std::thread::scope(|scope| scope.spawn(|| segment.register().unwrap()).join().unwrap());
                }
            });
        }
        for turn in 1..=50 {
            assert!(forked(|| {
                segment.register().unwrap();
                mutex.lock().unwrap().update(|n| *n += 1);
                true
            }));
            assert_eq!(mutex.lock().unwrap().get(), turn);
        }
        done.store(1, Relaxed);
    });
    let alive = || segment.participants().unwrap().iter().filter(|p| p.liveness == Liveness::Alive).count();
    eventually("only the dead are left", || alive() == 0);
}
