//! Garbage over a segment that is in use: an error at worst, for everybody.
//!
//! Threads and processes lock mutexes and reader-writer locks, look for objects, make them, register and leave, while somebody
//! writes random words and bytes over all tables, lock words and alive words. Nobody may panic or crash, and nobody may
//! wait much longer than the time that it has set. A word that names somebody who lives makes others wait, so here all set
//! a time. (A memfd's size is sealed: what is mapped stays.)
//!
//! ```text
//! CROSSLOCK_CORRUPTION_S=600 cargo test -p crosslock --test corruption
//! RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer" \
//!     cargo test --target x86_64-unknown-linux-gnu -p crosslock --test corruption
//! ```
//! Built without `--release` all arithmetic is checked for overflow.

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock::crosslock_core::{RawPvQSpin, RawTas};
use crosslock::{Error, LockError, Options, Release, Segment};
use support::{Actor, Random, abort_on_panic, role, say, seconds, sleep_until_killed};

/// Nobody may take longer, whatever it finds.
const BOUND: Duration = Duration::from_secs(5);
/// The longest time that anybody sets.
const LONGEST_WAIT_MS: u64 = 1_000;
/// How long one segment is written over.
const ONE: Duration = Duration::from_millis(150);

const NAMES: [&str; 3] = ["a", "b", "c"];

fn fresh(seed: u64) -> Segment {
    let release = if seed.is_multiple_of(2) { Release::Store } else { Release::Exchange };
    let options = Options::new().participants(12).objects(16).heap_size(4096).release(release);
    let segment = options.create_memfd("corrupted").unwrap();
    for name in NAMES {
        segment.mutex(name, [0u64; 2]).unwrap();
        segment.rwlock(&format!("rw-{name}"), [0u64; 2]).unwrap();
    }
    segment
}

/// What was done, told to whoever asks why it is not done yet.
struct Watch {
    since: Instant,
    what: &'static str,
}

impl Watch {
    fn did(&mut self, what: &'static str) {
        let took = self.since.elapsed();
        // A thread that gets no CPU is late, too.
        assert!(took < BOUND, "{what} after {} took {took:?}", self.what);
        (self.what, self.since) = (what, Instant::now());
    }
}

/// How often locks were had, and refused for what is in the segment.
#[derive(Debug, Default)]
struct Tally {
    had: AtomicU32,
    refused: AtomicU32,
}

impl Tally {
    fn had(&self) {
        self.had.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the error, as a program would.
    fn refused(&self, error: &Error) {
        assert!(!error.to_string().is_empty());
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One turn of one who uses the segment.
fn use_it(segment: &Segment, random: &mut Random, watch: &mut Watch, tally: &Tally) {
    let name = NAMES[random.index(NAMES.len())];
    // Rarely long, or little would happen.
    let wait_ms = if random.one_in(100) { LONGEST_WAIT_MS } else { random.below(5) };
    let timeout = Duration::from_millis(wait_ms);
    let rw = format!("rw-{name}");
    match random.below(12) {
        0..4 => {
            let got = match segment.open_mutex::<[u64; 2]>(name) {
                Ok(mutex) => mutex,
                Err(error) => return tally.refused(&error),
            };
            let got = if random.one_in(3) { got.try_lock() } else { got.lock_timeout(timeout) };
            watch.did("lock a mutex");
            match got {
                Ok(Some(mut guard)) => {
                    tally.had();
                    guard.update(|[a, b]| (*a, *b) = (a.wrapping_add(1), b.wrapping_sub(1)));
                    let _ = guard.unlock().map_err(|error| tally.refused(&error));
                }
                Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
                    suspect.into_guard().mark_consistent();
                }
                Ok(None) => {}
                Err(LockError::Failed(error)) => {
                    tally.refused(&error);
                    // Somebody must, or nobody would get it any more.
                    let _ = segment.force_unlock(name);
                }
            }
            watch.did("unlock a mutex");
        }
        4..6 => {
            let lock = match segment.open_rwlock::<[u64; 2]>(&rw) {
                Ok(lock) => lock,
                Err(error) => return tally.refused(&error),
            };
            let got = if random.one_in(3) { lock.try_read() } else { lock.read_timeout(timeout) };
            watch.did("read");
            match got {
                Ok(Some(guard)) => {
                    tally.had();
                    let _ = guard.get();
                }
                Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
                    let _ = suspect.guard().get();
                }
                Ok(None) => {}
                Err(LockError::Failed(error)) => tally.refused(&error),
            }
            watch.did("stop reading");
        }
        6..8 => {
            let lock = match segment.open_rwlock::<[u64; 2]>(&rw) {
                Ok(lock) => lock,
                Err(error) => return tally.refused(&error),
            };
            let got = if random.one_in(3) { lock.try_write() } else { lock.write_timeout(timeout) };
            watch.did("write");
            match got {
                Ok(Some(mut guard)) => {
                    tally.had();
                    guard.update(|both| both[0] = both[0].wrapping_add(1));
                    let _ = guard.unlock().map_err(|error| tally.refused(&error));
                }
                Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
                    suspect.into_guard().mark_consistent();
                }
                Ok(None) => {}
                Err(LockError::Failed(error)) => {
                    tally.refused(&error);
                    let _ = segment.force_unlock(&rw);
                }
            }
            watch.did("stop writing");
        }
        8 => {
            // Those of spin locks wait without end, so they are tried only.
            if let Ok(spin) = segment.spin_mutex::<_, RawPvQSpin>("spin", 0u64)
                && let Ok(Some(guard)) = spin.try_lock()
            {
                let _ = guard.unlock();
            }
            let _ = segment.spin_mutex::<_, RawTas>(name, 0u64).map_err(|error| tally.refused(&error));
            watch.did("make a spin lock");
        }
        9 => {
            let new = format!("new-{}", random.below(64));
            let _ = segment.mutex(&new, 0u32).map_err(|error| tally.refused(&error));
            let _ = segment.rwlock(&new, 0u32).map_err(|error| tally.refused(&error));
            watch.did("make objects");
        }
        10 => {
            let told = format!("{:?} {:?} {:?}", segment.locks(), segment.objects(), segment.participants());
            assert!(!told.is_empty());
            let _ = (segment.heap_used(), segment.counters(), segment.repair());
            watch.did("look at everything");
        }
        _ => {
            let live = || {
                let _ = segment.register().map_err(|error| tally.refused(&error));
                if let Ok(mutex) = segment.open_mutex::<[u64; 2]>(name)
                    && let Ok(Some(guard)) = mutex.try_lock()
                {
                    // Some die inside.
                    std::mem::forget(guard);
                }
            };
            std::thread::scope(|scope| scope.spawn(live).join().unwrap());
            watch.did("live and die");
        }
    }
}

fn use_until(end: Instant, segment: &Segment, mut random: Random, tally: &Tally) {
    let mut watch = Watch { since: Instant::now(), what: "begin" };
    while Instant::now() < end {
        use_it(segment, &mut random, &mut watch, tally);
    }
}

fn garbage(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => random.below(1 << 20),
        4 => random.below(16) << 32 | random.below(16),
        _ => random.next(),
    }
}

/// Writes over all of the segment, and now and then back what was there when it was new.
fn corrupt(segment: &Segment, done: &AtomicU32, random: &mut Random) {
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let mut new = vec![0; segment.size()];
    file.read_exact_at(&mut new, 0).unwrap();
    let number = |at: usize| u64::from_le_bytes(new[at..at + 8].try_into().unwrap());
    // As docs/segment.md has them: header, per_cpu, participants, hash, directory, seats, alive, heap.
    let mut starts =
        [0, number(80), number(88), number(96), number(104), number(112), number(120), number(128)];
    starts.sort_unstable();
    let ends = starts[1..].iter().copied().chain([new.len() as u64]);
    let tables: Vec<_> = starts.into_iter().zip(ends).collect();
    let mut turn = 0_u64;
    while done.load(Ordering::Relaxed) == 0 {
        turn += 1;
        // All tables alike: the pages of alive words are large, and mostly empty.
        let (start, end) = tables[random.index(tables.len())];
        let is_page_end = |at: u64| start == number(120) && at % 4096 < 4072;
        let at = start + random.below(end - start);
        let at = if is_page_end(at) { at - at % 4096 + 4072 + random.below(24) } else { at };
        let at = at.min(new.len() as u64 - 8);
        let value = garbage(random).to_le_bytes();
        match random.below(4) {
            0 => file.write_all_at(&value[..1], at).unwrap(),
            1 => file.write_all_at(&value[..4], at & !3).unwrap(),
            _ => file.write_all_at(&value, at & !7).unwrap(),
        }
        if turn.is_multiple_of(64) {
            let (start, end) = tables[random.index(tables.len())];
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            file.write_all_at(&new[range], start).unwrap();
        }
        if turn.is_multiple_of(16) {
            std::thread::yield_now();
        }
    }
}

/// For as many segments as there is time for, from `CROSSLOCK_CORRUPTION_SEED` on.
fn each(default_s: u64, mut one: impl FnMut(u64)) {
    let start = Instant::now();
    let first = std::env::var("CROSSLOCK_CORRUPTION_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut seed = first;
    while seed == first || start.elapsed() < seconds("CROSSLOCK_CORRUPTION_S", default_s) {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            abort_unless_done_in(6 * BOUND, seed, || one(seed));
        }));
        assert!(failed.is_ok(), "seed {seed}");
        seed += 1;
    }
    println!("{} segments", seed - first);
}

/// What hangs cannot be ended otherwise.
fn abort_unless_done_in(time: Duration, seed: u64, deed: impl FnOnce()) {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("seed {seed} hangs");
                std::process::abort();
            }
        });
        // Also where it panics.
        let _done = done;
        deed();
    });
}

/// While somebody writes over the segment.
fn while_corrupted(segment: &Segment, seed: u64, deed: impl FnOnce()) {
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| corrupt(segment, &done, &mut Random::new(!seed)));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed));
        // In any case, or this would wait for it.
        done.store(1, Ordering::Relaxed);
        ended.unwrap();
    });
}

#[test]
fn threads_go_on() {
    let tally = Tally::default();
    each(4, |seed| {
        let segment = fresh(seed);
        let end = Instant::now() + ONE;
        while_corrupted(&segment, seed, || {
            std::thread::scope(|scope| {
                for worker in 0..4 {
                    let (segment, tally, random) = (&segment, &tally, Random::new(8 * seed + worker));
                    scope.spawn(move || use_until(end, segment, random, tally));
                }
            });
        });
    });
    println!("{tally:?}");
    let [had, refused] = [&tally.had, &tally.refused].map(|count| count.load(Ordering::Relaxed));
    assert!(had > 100, "hardly any lock was had: there was too much garbage");
    assert!(refused > 100, "hardly anything was refused: there was too little garbage");
}

/// Opens what a descriptor of this process that has been handed down leads to.
fn handed_down(descriptor: &str) -> Segment {
    // SAFETY: left open for this process, which uses it here alone.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor.parse().unwrap()) };
    Segment::from_fd(descriptor).unwrap()
}

#[test]
fn processes_go_on() {
    if let Some((role, _)) = role() {
        abort_on_panic();
        let (descriptor, seed) = role.split_once(' ').unwrap();
        let seed: u64 = seed.parse().unwrap();
        let segment = handed_down(descriptor);
        say("begins");
        let end = Instant::now() + 2 * ONE;
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (segment, random) = (&segment, Random::new(8 * seed + worker));
                scope.spawn(move || use_until(end, segment, random, &Tally::default()));
            }
        });
        say("ends");
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    each(3, |seed| {
        let segment = fresh(seed);
        let descriptor = segment.descriptor().unwrap();
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty()).unwrap();
        let mut start = |worker: u64| {
            let role = format!("{} {}", descriptor.as_raw_fd(), 2 * seed + worker);
            let mut actor = Actor::start("processes_go_on", &role, directory.path());
            assert_eq!(actor.hear(), "begins");
            actor
        };
        let actors = [0, 1].map(&mut start);
        while_corrupted(&segment, seed, || {
            actors.into_iter().for_each(|mut actor| assert_eq!(actor.hear(), "ends"));
        });
    });
}
