//! Many mutexes, processes with many threads, and death at random moments.
//!
//! ```text
//! CROSSLOCK_STRESS_S=600 cargo test --release -p crosslock --test robust_stress
//! ```
//! In the spirit of the stress test of robust mutexes in glibc (nptl/tst-robust8): threads lock, try, and wait for some time, have
//! several locks at once, and their processes kill themselves. Every lock's data say whether somebody is inside, so
//! whoever gets the lock knows whether it must be told of a death.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex as Serial;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::{Name, RobustOps};
use crosslock::{Guard, LockError, Mutex, Options, Release, Segment};
use rustix::process::{Signal, getpid, kill_process};
use support::{
    Actor, Random, abort_on_panic, all_slots_can_be_had, eventually, role, say, seconds, sleep_until_killed,
    small,
};

const MUTEXES: usize = 100;
const PROCESSES: usize = 3;
/// In each process, besides the main thread.
const WORKERS: u64 = 8;
/// At once, by one thread.
const MOST_HELD: usize = 4;
/// Turns of all threads of a process until one of them kills it, on average.
const LIFE: u64 = 3_000;
/// Longer than a lock is kept, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bits of the name of who is inside, or 0.
const INSIDE: usize = 0;
/// How many have begun to change the data.
const BEGUN: usize = 1;
/// How many of them have come to the end, or were found dead.
const DONE: usize = 2;
/// How many were found dead.
const FOUND_DEAD: usize = 3;
type Data = [u64; 4];

fn word(guard: &Guard<'_, Data>, index: usize) -> u64 {
    guard.words()[index].load(Ordering::Relaxed)
}

/// In the order of the program, for those who find the data after a death.
fn set(guard: &Guard<'_, Data>, index: usize, value: u64) {
    guard.words()[index].store(value, Ordering::Release);
}

/// Begins to change what is in good order, or is put in order now.
fn enter<'a>(
    segment: &Segment,
    got: Result<Option<Guard<'a, Data>>, LockError<Guard<'a, Data>>>,
) -> Option<Guard<'a, Data>> {
    let context = segment.context().unwrap();
    let guard = match got {
        Ok(guard) => guard?,
        Err(LockError::OwnerDied(suspect)) => {
            let mut guard = suspect.into_guard();
            let (inside, begun, done) = (word(&guard, INSIDE), word(&guard, BEGUN), word(&guard, DONE));
            let dead = Name::from_bits(inside);
            assert!(inside == 0 || dead.is_some_and(|dead| context.is_dead(dead)), "{dead:?} lives");
            assert!(begun - done <= 1, "{begun} have begun, {done} are done");
            set(&guard, FOUND_DEAD, word(&guard, FOUND_DEAD) + 1);
            set(&guard, DONE, begun);
            set(&guard, INSIDE, 0);
            guard.mark_consistent();
            guard
        }
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(word(&guard, INSIDE), 0, "nobody told of a death");
    assert_eq!(word(&guard, BEGUN), word(&guard, DONE), "nobody told of a death");
    set(&guard, INSIDE, context.me().unwrap().bits());
    set(&guard, BEGUN, word(&guard, BEGUN) + 1);
    Some(guard)
}

fn leave(segment: &Segment, guard: Guard<'_, Data>) {
    assert_eq!(word(&guard, INSIDE), segment.context().unwrap().me().unwrap().bits());
    set(&guard, DONE, word(&guard, BEGUN));
    set(&guard, INSIDE, 0);
    guard.unlock().unwrap();
}

/// What each thread does until its process is killed.
fn work(segment: &Segment, mutexes: &[Mutex<Data>], mut random: Random, is_main: bool) -> ! {
    let mut held: Vec<(usize, Guard<'_, Data>)> = Vec::new();
    loop {
        if random.one_in(LIFE) {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        if !is_main && random.one_in(10 * LIFE) {
            // SAFETY: ends this thread alone, with all that it has, and without destructors.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        if held.len() == MOST_HELD || !held.is_empty() && random.one_in(2) {
            let (_, guard) = held.swap_remove(random.index(held.len()));
            leave(segment, guard);
            continue;
        }
        let wanted = random.index(MUTEXES);
        let mutex = &mutexes[wanted];
        if held.iter().any(|(index, _)| *index == wanted) {
            assert!(matches!(mutex.try_lock(), Ok(None)));
            assert!(matches!(mutex.lock(), Err(LockError::Failed(crosslock::Error::Deadlock))));
            continue;
        }
        // Who waits without end does so in the order of the mutexes.
        let may_wait = held.iter().all(|(index, _)| *index < wanted);
        let got = match random.below(3) {
            0 if may_wait => mutex.lock().map(Some),
            1 => mutex.lock_timeout(Duration::from_micros(random.below(2_000))),
            _ => mutex.try_lock(),
        };
        if let Some(guard) = enter(segment, got) {
            held.push((wanted, guard));
        }
    }
}

fn open_all(segment: &Segment) -> Vec<Mutex<Data>> {
    (0..MUTEXES).map(|index| segment.open_mutex(&format!("m{index}")).unwrap()).collect()
}

/// What each process does: its role is a seed, and perhaps that it is to do without a system call.
fn live(role: &str, options: &Options) -> ! {
    abort_on_panic();
    let mut words = role.split(' ');
    let seed: u64 = words.next().unwrap().parse().unwrap();
    if words.next() == Some(WITHOUT_WAITV) {
        // SAFETY: the other threads of this process wait for this one.
        unsafe { std::env::set_var("CROSSLOCK_NO_FUTEX_WAITV", "1") };
    }
    let segment = options.open("s").unwrap();
    let mutexes = open_all(&segment);
    std::thread::scope(|scope| {
        for worker in 1..=WORKERS {
            let (segment, mutexes) = (&segment, &mutexes);
            scope.spawn(move || work(segment, mutexes, Random::new(16 * seed + worker), false));
        }
        work(&segment, &mutexes, Random::new(16 * seed), true)
    })
}

const WITHOUT_WAITV: &str = "without-waitv";

fn in_file(directory: &tempfile::TempDir, release: Release) -> (Segment, Vec<Mutex<Data>>) {
    let objects = u32::try_from(MUTEXES).unwrap();
    let options = small(directory.path()).participants(40).objects(objects).heap_size(1 << 15);
    let segment = options.release(release).create("s").unwrap();
    let mutexes = (0..MUTEXES).map(|index| segment.mutex(&format!("m{index}"), [0; 4]).unwrap()).collect();
    (segment, mutexes)
}

fn stress(test: &str, release: Release, how: &str, duration: Duration) {
    static ONE_AT_A_TIME: Serial<()> = Serial::new(());

    if let Some((role, options)) = role() {
        live(&role, &options);
    }
    let _alone = ONE_AT_A_TIME.lock();
    let directory = tempfile::tempdir().unwrap();
    let (segment, mutexes) = in_file(&directory, release);
    let mut seed = 0;
    let mut start_one = || {
        seed += 1;
        Actor::start(test, &format!("{seed} {how}"), directory.path())
    };
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start_one()).collect();
    let mut random = Random::new(0);
    let mut killed = 0;
    let start = Instant::now();
    while start.elapsed() < duration || killed < 2 * PROCESSES {
        assert!(start.elapsed() < duration + PATIENCE, "{killed} killed only: they stand still");
        for process in &mut processes {
            if let Some(status) = process.ended() {
                assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
                killed += 1;
                *process = start_one();
            }
        }
        let mutex = &mutexes[random.index(MUTEXES)];
        leave(&segment, enter(&segment, mutex.lock_timeout(PATIENCE)).expect("it stands still"));
    }
    drop(processes);
    let (mut sections, mut found_dead) = (0, 0);
    for mutex in &mutexes {
        leave(&segment, enter(&segment, mutex.try_lock()).expect("nobody is left who could have it"));
        let guard = mutex.try_lock().expect("told twice").expect("nobody has it");
        sections += word(&guard, DONE);
        found_dead += word(&guard, FOUND_DEAD);
    }
    let threads = (killed + PROCESSES) * (1 + usize::try_from(WORKERS).unwrap());
    println!("{sections} sections, {killed} processes killed, {found_dead} owners found dead");
    assert!(found_dead > 0, "nobody died inside");
    assert!(found_dead <= (threads * (MOST_HELD + 1)) as u64, "more than have died");
    let waiting = segment.locks().iter().flat_map(|lock| lock.waiters.clone()).find(|it| it.party.is_alive);
    assert_eq!(waiting, None);
    all_slots_can_be_had(&segment, 1);
}

#[test]
fn killed_at_random() {
    stress("killed_at_random", Release::Store, "", seconds("CROSSLOCK_STRESS_S", 3));
}

#[test]
fn killed_at_random_by_exchange() {
    stress("killed_at_random_by_exchange", Release::Exchange, "", seconds("CROSSLOCK_STRESS_S", 1));
}

#[test]
fn killed_at_random_without_waitv() {
    let duration = seconds("CROSSLOCK_STRESS_S", 1);
    stress("killed_at_random_without_waitv", Release::Store, WITHOUT_WAITV, duration);
}

#[test]
fn killed_at_random_by_exchange_without_waitv() {
    let duration = seconds("CROSSLOCK_STRESS_S", 1);
    stress("killed_at_random_by_exchange_without_waitv", Release::Exchange, WITHOUT_WAITV, duration);
}

/// One thread has some of the mutexes when it is killed: of these the next ones are told, of others not.
#[test]
fn exactly_the_locks_of_the_dead_are_told_of() {
    const TEST: &str = "exactly_the_locks_of_the_dead_are_told_of";
    if let Some((role, options)) = role() {
        let segment = options.open("s").unwrap();
        let mutexes = open_all(&segment);
        let mut random = Random::new(role.parse().unwrap());
        let mut guards: Vec<_> = mutexes.iter().map(|mutex| mutex.lock().unwrap()).collect();
        let keeps: Vec<_> = guards.iter().map(|_| random.one_in(3)).collect();
        let mut keep = keeps.iter();
        guards.retain(|_| *keep.next().unwrap());
        say(keeps.iter().map(|keeps| if *keeps { '1' } else { '0' }).collect::<String>());
        sleep_until_killed();
    }
    for release in [Release::Store, Release::Exchange] {
        let directory = tempfile::tempdir().unwrap();
        let (segment, mutexes) = in_file(&directory, release);
        for seed in 0..5 {
            let mut process = Actor::start(TEST, &seed.to_string(), directory.path());
            let said = process.hear();
            process.kill();
            for (index, (mutex, kept)) in mutexes.iter().zip(said.bytes()).enumerate() {
                let told = match mutex.try_lock() {
                    Ok(guard) => guard.map(|_| false),
                    Err(LockError::OwnerDied(suspect)) => {
                        suspect.into_guard().mark_consistent();
                        Some(true)
                    }
                    Err(other) => panic!("{other:?}"),
                };
                assert_eq!(told, Some(kept == b'1'), "mutex {index}");
            }
        }
        eventually("nobody else is left", || segment.participants().unwrap().iter().all(is_here));
        all_slots_can_be_had(&segment, 1);
    }
}

/// Of this process, or dead.
fn is_here(participant: &crosslock::Participant) -> bool {
    participant.pid == std::process::id() || participant.liveness == crosslock::Liveness::Dead
}
