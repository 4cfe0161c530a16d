//! Names, their deaths, and sleep until then.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::Ordering;
use crosslock::crosslock_core::{Name, RobustOps};
use crosslock::{Liveness, Options, Segment};
use rustix::process::{Signal, kill_process};
use support::names::{
    alive_word_at, doze, hear_name, holder, is_dead, me, registered, sleep_until_dead, u32_at,
};
use support::{Actor, all_slots_can_be_had, eventually, forked, role, say, sleep_until_killed, small};

/// How long the longest sleep is that nobody ends.
const NET: Duration = Duration::from_millis(50);

/// How long after the deed each of some sleepers was up.
fn latencies<R>(
    segment: &Segment,
    watched: Name,
    sleepers: usize,
    deed: impl FnOnce() -> R,
) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let sleep = || scope.spawn(|| sleep_until_dead(segment, watched));
        let sleepers: Vec<_> = (0..sleepers).map(|_| sleep()).collect();
        std::thread::sleep(Duration::from_millis(17));
        assert!(sleepers.iter().all(|sleeper| !sleeper.is_finished()), "{watched} is not dead yet");
        let done = Instant::now();
        deed();
        sleepers.into_iter().map(|up| up.join().unwrap().saturating_duration_since(done)).collect()
    })
}

/// Whom nobody wakes is up after half the net, in the median.
fn assert_woken(mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    println!("median {median:?}, worst {:?}", latencies.last());
    assert!(median < NET / 5, "median {median:?} of {latencies:?}");
}

#[test]
fn the_end_of_a_thread_wakes_who_waits_for_it() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    let one = |_| {
        let (name, end) = registered(&segment, || ());
        latencies(&segment, name, 2, || drop(end))
    };
    assert_woken((0..15).flat_map(one).collect());
}

#[test]
fn a_thread_that_ends_without_a_word_is_dead() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    let one = |_| {
        // SAFETY: the thread ends here, without destructors; what it has is leaked.
        let (name, end) = registered(&segment, || unsafe {
            libc::syscall(libc::SYS_exit, 0);
        });
        let latencies = latencies(&segment, name, 3, || drop(end));
        let dead = segment.participants().unwrap().into_iter().find(|one| one.slot == name.slot()).unwrap();
        assert_eq!(dead.liveness, Liveness::Dead, "though its process lives");
        latencies
    };
    assert_woken((0..15).flat_map(one).collect());
}

/// What the other process of many tests does: registers, says its name's bits, and does nothing more.
fn sit(options: &Options) -> ! {
    let segment = options.open("s").unwrap();
    say(me(&segment).bits());
    sleep_until_killed()
}

#[test]
fn a_killed_process_is_dead_before_anybody_has_waited_for_it() {
    let test = "a_killed_process_is_dead_before_anybody_has_waited_for_it";
    if let Some((_, options)) = role() {
        sit(&options);
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let one = |_| {
        let mut other = Actor::start(test, "", directory.path());
        let name = hear_name(&mut other);
        // It stays a zombie until the actor is dropped.
        latencies(&segment, name, 3, || kill_process(other.pid(), Signal::KILL).unwrap())
    };
    assert_woken((0..15).flat_map(one).collect());
}

#[test]
fn a_process_that_executes_another_program_is_dead() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    me(&segment);
    // SAFETY: as in `forked`; the child executes another program.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let other = segment.clone();
        std::thread::spawn(move || {
            me(&other);
            std::thread::sleep(Duration::from_secs(60));
        });
        eventually("the other thread is there", || segment.participants().unwrap().len() == 2);
        me(&segment);
        eprintln!("{}", std::process::Command::new("sleep").arg("60").exec());
        // SAFETY: ends the process, without destructors.
        unsafe { libc::_exit(1) };
    }
    eventually("both are there", || segment.participants().unwrap().len() == 3);
    let names = [1, 2].map(|slot| holder(&segment, slot));
    for name in names {
        sleep_until_dead(&segment, name);
    }
    let child = rustix::process::Pid::from_raw(child).unwrap();
    kill_process(child, Signal::KILL).expect("it still runs");
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap();
}

/// Whoever dies without the kernel's saying so has lost its lease.
fn assert_found_dead(segment: &Segment, names: &[Name]) {
    for &name in names {
        assert!(!is_dead(segment, name), "it was to be a death that nobody tells of");
        let start = Instant::now();
        sleep_until_dead(segment, name);
        assert!(start.elapsed() < 20 * NET, "{:?}", start.elapsed());
        assert!(segment.identify(name).is_some(), "who it was is still known");
    }
    all_slots_can_be_had(segment, 1);
}

#[test]
fn a_thread_that_executes_another_program_is_dead_with_its_process() {
    let test = "a_thread_that_executes_another_program_is_dead_with_its_process";
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        std::thread::spawn(move || {
            say(me(&segment).bits());
            panic!("{}", std::process::Command::new("sleep").arg("60").exec());
        });
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let mut other = Actor::start(test, "", directory.path());
    let name = hear_name(&mut other);
    let lease_is_free = || segment.participants().unwrap().iter().all(|one| one.liveness == Liveness::Dead);
    eventually("it executes the other program", lease_is_free);
    assert_found_dead(&segment, &[name]);
    assert!(other.ended().is_none(), "the other program runs");
}

#[test]
fn who_lost_its_lease_is_dead_whatever_its_word_says() {
    if let Some((_, options)) = role() {
        let segment = options.open("s").unwrap();
        core::mem::forget(segment.mutex("m", 0_u64).unwrap().lock());
        sit(&options);
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let mut other = Actor::start("who_lost_its_lease_is_dead_whatever_its_word_says", "", directory.path());
    let name = hear_name(&mut other);
    let file = File::from(segment.descriptor().unwrap());
    let at = alive_word_at(&file, name.slot());
    let word = u32_at(&file, at);
    other.kill();
    assert!(is_dead(&segment, name));
    // As after the crash of a machine: the file is as it was.
    file.write_all_at(&word.to_ne_bytes(), at).unwrap();
    let lock = || segment.locks().into_iter().next().unwrap();
    assert!(!lock().owner.unwrap().is_alive, "whoever looks sees it");
    assert_found_dead(&segment, &[name]);
    assert_eq!(segment.repair().unwrap().len(), 1);
}

#[test]
fn who_is_stopped_lives() {
    if let Some((_, options)) = role() {
        sit(&options);
    }
    let directory = tempfile::tempdir().unwrap();
    let segment = small(directory.path()).create("s").unwrap();
    let mut other = Actor::start("who_is_stopped_lives", "", directory.path());
    let name = hear_name(&mut other);
    kill_process(other.pid(), Signal::STOP).unwrap();
    for _ in 0..4 {
        doze(&segment, name, u64::MAX);
        assert!(!is_dead(&segment, name));
    }
    assert_eq!(holder(&segment, name.slot().index()), name);
    kill_process(other.pid(), Signal::KILL).unwrap();
    sleep_until_dead(&segment, name);
}

#[test]
fn a_forked_child_is_somebody_else_and_takes_nothing_along() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    let parent = me(&segment);
    for _ in 0..3 {
        assert!(forked(|| {
            let before = !is_dead(&segment, parent);
            let child = me(&segment);
            before && child != parent && !is_dead(&segment, child) && !is_dead(&segment, parent)
        }));
        assert!(!is_dead(&segment, parent));
        assert_eq!(me(&segment), parent);
        assert!(is_dead(&segment, holder(&segment, 1)), "the child's");
    }
}

#[test]
fn deaths_are_found_without_futex_waitv() {
    if role().is_some() {
        // SAFETY: the other threads of this process wait for this one.
        unsafe { std::env::set_var("CROSSLOCK_NO_FUTEX_WAITV", "1") };
        let segment = Options::new().create_memfd("deaths").unwrap();
        let naps = (0..10).map(|_| {
            let start = Instant::now();
            doze(&segment, me(&segment), u64::MAX);
            start.elapsed()
        });
        assert!(naps.min().unwrap() < NET / 5, "the short sleeps show that it is not used");
        let one = |_| {
            let (name, end) = registered(&segment, || ());
            latencies(&segment, name, 2, || drop(end))
        };
        assert_woken((0..15).flat_map(one).collect());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    Actor::start("deaths_are_found_without_futex_waitv", "", directory.path()).join();
}

#[test]
fn a_kick_or_the_clock_ends_the_sleep() {
    let segment = Options::new().create_memfd("deaths").unwrap();
    let (name, _end) = registered(&segment, || ());
    let context = segment.context().unwrap();
    let start = context.now_ns();
    while context.now_ns() < start + 3_000_000 {
        doze(&segment, name, start + 3_000_000);
    }
    let mut naps: Vec<_> = (0..11)
        .map(|_| {
            let nap = || {
                let (context, me) = (segment.context().unwrap(), me(&segment));
                let seen = context.seats()[me.slot().index()].kicks().load(Ordering::Acquire);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::thread::sleep(Duration::from_millis(2));
                        context.kick(me.slot());
                    });
                    context.sleep(me, seen, name, u64::MAX);
                });
                assert!(context.seats()[me.slot().index()].kicks().load(Ordering::Acquire) >= seen);
            };
            let start = Instant::now();
            nap();
            start.elapsed()
        })
        .collect();
    naps.sort_unstable();
    assert!(naps[5] < NET / 3, "{naps:?}");
    let seen = context.seats()[me(&segment).slot().index()].kicks().load(Ordering::Acquire);
    let start = Instant::now();
    (0..100).for_each(|_| context.sleep(me(&segment), seen.wrapping_sub(1), name, u64::MAX));
    assert!(start.elapsed() < 40 * NET, "who was kicked before does not sleep");
}
