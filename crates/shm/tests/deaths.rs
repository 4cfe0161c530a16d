//! Names, their deaths, and sleep until then.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock::crosslock_core::{CpuId, Name, RobustOps};
use crosslock::{Error, Liveness, Options, Segment};
use rustix::process::{Signal, kill_process};
use support::{Actor, all_slots_can_be_had, eventually, forked, role, say, sleep_until_killed, small};

/// How long the longest sleep is that nobody ends.
const NET: Duration = Duration::from_millis(50);

fn me(segment: &Segment) -> Name {
    segment.context().unwrap().me().unwrap()
}

fn is_dead(segment: &Segment, name: Name) -> bool {
    segment.context().unwrap().is_dead(name)
}

fn holder(segment: &Segment, slot: usize) -> Name {
    segment.context().unwrap().name_of(CpuId::new(slot).unwrap()).unwrap()
}

/// One sleep, at most, until `watched` is dead.
fn doze(segment: &Segment, watched: Name, until_ns: u64) {
    let (context, me) = (segment.context().unwrap(), me(segment));
    let seen = context.seats()[me.slot().index()].kicks().load(Ordering::Acquire);
    context.sleep(me, seen, watched, until_ns);
}

fn sleep_until_dead(segment: &Segment, watched: Name) -> Instant {
    while !is_dead(segment, watched) {
        doze(segment, watched, u64::MAX);
    }
    Instant::now()
}

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

/// A thread that has registered, and ends as soon as it is told.
fn registered(segment: &Segment, end: fn()) -> (Name, mpsc::Sender<()>) {
    let (told, (wait, go)) = (segment.clone(), mpsc::channel::<()>());
    let (tell, name) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(me(&told)).unwrap();
        drop(told);
        let _ = go.recv();
        end();
    });
    (name.recv().unwrap(), wait)
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

fn hear_name(actor: &mut Actor) -> Name {
    Name::from_bits(actor.hear().parse().unwrap()).unwrap()
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

fn u32_at(file: &File, at: u64) -> u32 {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).unwrap();
    u32::from_ne_bytes(bytes)
}

/// Where the header says that something begins.
fn header_says(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

const RECORDS: u64 = 88;
const ALIVE: u64 = 120;

fn alive_word_at(file: &File, slot: CpuId) -> u64 {
    let slot = slot.index() as u64;
    let offset = u32_at(file, header_says(file, RECORDS) + 448 * slot + 12);
    header_says(file, ALIVE) + 4096 * slot + u64::from(offset)
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
