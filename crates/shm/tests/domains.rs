//! Several domains in one segment, on one kernel: what a guest does with a device's memory is done with a file here, so that everything
//! but the device is real. What one domain may know of another goes through the segment and doorbells alone.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crosslock::crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock::crosslock_core::{Event, RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{DomainId, Error, LockError, Options, Segment, SegmentContext};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use support::names::{is_dead, me};
use support::{Actor, abort_on_panic, role, say, sleep_until_killed, small};

const DOMAINS: u32 = 4;
const EACH: u32 = 8;

fn options(directory: &Path) -> Options {
    small(directory).domains(DOMAINS).participants(DOMAINS * EACH).objects(16).heap_size(1 << 14)
}

/// The segment as `domain` sees it.
fn open(directory: &Path, domain: u32) -> Segment {
    let options = Options::new().directory(directory);
    if domain == 0 {
        options.open("s").unwrap()
    } else {
        options.open_device(&directory.join("s"), DomainId::Number(domain)).unwrap()
    }
}

/// Vectors of each domain's doorbell: that of its agent, and two to sleep on.
const VECTORS: usize = 3;

/// The eventfds of each domain, by the number of the peer.
struct Bells(Vec<[OwnedFd; VECTORS]>);

impl Bells {
    fn new() -> Arc<Self> {
        let bell = |_| eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        Arc::new(Self((0..DOMAINS).map(|_| core::array::from_fn(bell)).collect()))
    }

    fn ring(&self, peer: u16, vector: u16) {
        if let Some(fd) = self.0.get(usize::from(peer)).and_then(|bells| bells.get(usize::from(vector))) {
            rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// Those that a domain's threads sleep on.
    fn of_sleepers(&self, domain: usize) -> Vec<OwnedFd> {
        self.0[domain][1..].iter().map(|bell| bell.try_clone().unwrap()).collect()
    }
}

/// Stands for a domain until `done`.
fn stand<'a>(scope: &'a Scope<'a, '_>, segment: &'a Segment, bells: &Arc<Bells>, done: &'a AtomicU32) {
    let peer = u16::try_from(segment.domain()).unwrap();
    let others = bells.clone();
    segment.set_doorbell(peer, move |peer, vector| others.ring(peer, vector)).unwrap();
    let (stands, does_stand) = mpsc::channel();
    scope.spawn(move || {
        let agent = segment.stand_for_domain().unwrap();
        stands.send(()).unwrap();
        while done.load(Ordering::Relaxed) == 0 {
            agent.watch(Duration::from_millis(20));
        }
    });
    let bells = bells.clone();
    scope.spawn(move || {
        while done.load(Ordering::Relaxed) == 0 {
            let fd = bells.0[segment.domain()][0].as_fd();
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&soon)).unwrap() > 0 {
                // Only to empty it.
                let _ = rustix::io::read(fd, &mut [0; 8]);
                segment.forward();
            }
        }
    });
    does_stand.recv().unwrap();
}

#[test]
fn threads_of_all_domains_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let turns = 2_000;
    let all: Vec<_> = (0..DOMAINS).map(|domain| open(directory.path(), domain)).collect();
    let count = |segment: &Segment| {
        let (mutex, rwlock) = (segment.mutex("m", 0_u64).unwrap(), segment.rwlock("rw", 0_u64).unwrap());
        for turn in 0..turns {
            mutex.lock().unwrap().update(|n| *n += 1);
            if turn % 4 == 0 {
                rwlock.write().unwrap().update(|n| *n += 1);
            } else {
                drop(rwlock.read().unwrap());
            }
        }
    };
    std::thread::scope(|scope| {
        for segment in all.iter().chain(&all) {
            scope.spawn(move || count(segment));
        }
    });
    let sections = u64::from(2 * DOMAINS) * turns;
    assert_eq!(host.mutex("m", 0_u64).unwrap().lock().unwrap().get(), sections);
    assert_eq!(host.rwlock("rw", 0_u64).unwrap().read().unwrap().get(), sections / 4);
}

#[test]
fn spin_locks_of_all_domains_exclude_each_other() {
    fn excludes<L: RawLock<SegmentContext>>() {
        let directory = tempfile::tempdir().unwrap();
        options(directory.path()).create("s").unwrap();
        let all: Vec<_> = (0..3).map(|domain| open(directory.path(), domain)).collect();
        std::thread::scope(|scope| {
            for segment in &all {
                scope.spawn(move || {
                    let mutex = segment.spin_mutex::<u64, L>("m", 0).unwrap();
                    (0..500).for_each(|_| mutex.lock().unwrap().update(|n| *n += 1));
                });
            }
        });
        assert_eq!(all[0].spin_mutex::<u64, L>("m", 0).unwrap().lock().unwrap().get(), 1_500, "{}", L::NAME);
    }
    excludes::<RawTas>();
    excludes::<RawTicket>();
    excludes::<RawMcs>();
    excludes::<RawQSpin>();
    excludes::<RawPvQSpin>();
}

/// A process of domain 1 that takes the mutex, or waits for it, and does nothing more.
fn other_process(role: &str, directory: &Path) -> ! {
    abort_on_panic();
    let segment = open(directory, 1);
    let mutex = segment.mutex("m", 0_u64).unwrap();
    if role == "owner" {
        core::mem::forget(mutex.lock().unwrap());
        say(me(&segment).bits());
    } else {
        say(me(&segment).bits());
        core::mem::forget(mutex.lock());
    }
    sleep_until_killed()
}

/// With the agents of both domains a death in one is known in the other at once; without, never.
#[test]
fn an_owner_that_dies_in_another_domain_is_found_by_its_agent() {
    let test = "an_owner_that_dies_in_another_domain_is_found_by_its_agent";
    if let Some((role, _)) = role() {
        other_process(&role, &support::directory().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let (guest, bells) = (open(directory.path(), 1), Bells::new());
    let mutex = host.mutex("m", 0_u64).unwrap();
    for has_agent in [false, true] {
        let done = AtomicU32::new(0);
        let mut other = Actor::start(test, "owner", directory.path());
        let name = support::names::hear_name(&mut other);
        std::thread::scope(|scope| {
            if has_agent {
                stand(scope, &host, &bells, &done);
                stand(scope, &guest, &bells, &done);
            }
            other.kill();
            let start = Instant::now();
            let got = mutex.lock_timeout(Duration::from_millis(if has_agent { 10_000 } else { 200 }));
            if has_agent {
                println!("found after {:?}", start.elapsed());
                let Err(LockError::OwnerDied(suspect)) = got else { panic!("{got:?}") };
                suspect.into_guard().mark_consistent();
            } else {
                assert!(matches!(got, Ok(None)), "nobody has proven it: {got:?}");
                assert!(!is_dead(&host, name) && is_dead(&guest, name));
                // The next one in that domain that looks for it frees it.
                let guests = guest.open_mutex::<u64>("m").unwrap();
                let Err(LockError::OwnerDied(suspect)) = guests.lock() else { panic!("nobody was told") };
                suspect.into_guard().mark_consistent();
            }
            done.store(1, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_domain_that_is_gone_is_dead_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    assert_eq!(host.admit(7).unwrap(), Some(1));
    let guest = open(directory.path(), 1);
    let mutex = guest.mutex("m", 0_u64).unwrap();
    let held = mutex.lock().unwrap();
    let name = me(&guest);
    assert!(!is_dead(&host, name));
    assert!(host.domains()[1].is_alive && !host.domains()[2].is_alive);
    host.dismiss(1).unwrap();
    assert!(is_dead(&host, name) && is_dead(&open(directory.path(), 2), name));
    assert!(matches!(host.open_mutex::<u64>("m").unwrap().try_lock(), Err(LockError::OwnerDied(_))));
    drop(held);
    // The next one in that place is another.
    assert_eq!(host.admit(8).unwrap(), Some(1));
    assert!(is_dead(&host, name));
    assert_eq!(host.domains()[1].peer, 8);
    assert_eq!((host.admit(9).unwrap(), host.admit(10).unwrap()), (Some(3), None), "2 has joined by itself");
    assert!(matches!(
        host.dismiss(9),
        Err(Error::NoSuchDomain { domain: DomainId::Number(9), domains: 4, .. })
    ));
}

/// While agents stand, a sleep lasts 50 ms unless somebody ends it.
#[test]
fn a_sleeper_is_woken_from_another_domain() {
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let (guest, bells, done) = (open(directory.path(), 1), Bells::new(), AtomicU32::new(0));
    let mutex = host.mutex("m", 0_u64).unwrap();
    std::thread::scope(|scope| {
        stand(scope, &host, &bells, &done);
        stand(scope, &guest, &bells, &done);
        let mut latencies: Vec<_> = (0..21)
            .map(|_| {
                let held = mutex.lock().unwrap();
                let waiter = scope.spawn(|| {
                    let mutex = guest.open_mutex::<u64>("m").unwrap();
                    drop(mutex.lock().unwrap());
                    Instant::now()
                });
                std::thread::sleep(Duration::from_millis(7));
                let released = Instant::now();
                drop(held);
                waiter.join().unwrap().saturating_duration_since(released)
            })
            .collect();
        done.store(1, Ordering::Relaxed);
        latencies.sort_unstable();
        println!("median {:?}, worst {:?}", latencies[10], latencies[20]);
        assert!(latencies[10] < Duration::from_millis(10), "{latencies:?}");
    });
}

/// Threads that sleep on bells are woken by whoever kicks them, near and far, and by deaths; a lost kick costs 50 ms.
#[test]
fn sleepers_on_bells_miss_no_kick() {
    const TURNS: u64 = 4_000;
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let (bells, done) = (Bells::new(), AtomicU32::new(0));
    let domains = [open(directory.path(), 1), open(directory.path(), 2)];
    for domain in &domains {
        let (bells, number) = (bells.clone(), domain.domain());
        domain.set_bells(move || bells.of_sleepers(number));
    }
    std::thread::scope(|scope| {
        domains.iter().for_each(|domain| stand(scope, domain, &bells, &done));
        // Two threads of each, so that kicks go to the neighbour, too; each holds the lock until others sleep.
        let work = |domain: &Segment| {
            let mutex = domain.mutex("m", 0_u64).unwrap();
            for _ in 0..TURNS / 4 {
                let mut guard = mutex.lock().unwrap();
                guard.update(|n| *n += 1);
                std::thread::sleep(Duration::from_micros(150));
            }
        };
        let threads: Vec<_> =
            domains.iter().chain(&domains).map(|domain| scope.spawn(move || work(domain))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(1, Ordering::Relaxed);
    });
    assert_eq!(host.open_mutex::<u64>("m").unwrap().lock().unwrap().get(), TURNS);
    let counters = host.counters();
    let (slept, late) = (counters[Event::PvWaitHead.index()], counters[Event::PvKickLate.index()]);
    println!("{slept} sleeps, {late} kicks late");
    assert!(slept > 0 && late * 100 < slept, "{slept} sleeps, {late} kicks late");
}

/// With bells nobody rings, kicks are late: the check above can fail.
#[test]
fn bells_that_do_not_ring_make_kicks_late() {
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let (bells, done) = (Bells::new(), AtomicU32::new(0));
    let domains = [open(directory.path(), 1), open(directory.path(), 2)];
    let deaf = Bells::new();
    domains[1].set_bells(move || deaf.of_sleepers(2));
    std::thread::scope(|scope| {
        domains.iter().for_each(|domain| stand(scope, domain, &bells, &done));
        let mutex = domains[0].mutex("m", 0_u64).unwrap();
        let held = mutex.lock().unwrap();
        let waiter = scope.spawn(|| drop(domains[1].mutex("m", 0_u64).unwrap().lock().unwrap()));
        // After its short naps it sleeps for 50 ms at a time.
        std::thread::sleep(Duration::from_millis(75));
        drop(held);
        waiter.join().unwrap();
        done.store(1, Ordering::Relaxed);
    });
    assert!(host.counters()[Event::PvKickLate.index()] > 0, "{:?}", host.counters());
}

/// A neighbour that dies is heard of by the agent, on whom those who sleep on bells rely.
#[test]
fn a_sleeper_on_a_bell_hears_of_a_neighbours_death() {
    let test = "a_sleeper_on_a_bell_hears_of_a_neighbours_death";
    if let Some((role, _)) = role() {
        other_process(&role, &support::directory().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    options(directory.path()).create("s").unwrap();
    let (bells, done) = (Bells::new(), AtomicU32::new(0));
    let guest = open(directory.path(), 1);
    let own = bells.clone();
    guest.set_bells(move || own.of_sleepers(1));
    let mut other = Actor::start(test, "owner", directory.path());
    support::names::hear_name(&mut other);
    std::thread::scope(|scope| {
        stand(scope, &guest, &bells, &done);
        let waiter = scope.spawn(|| {
            let mutex = guest.open_mutex::<u64>("m").unwrap();
            let Err(LockError::OwnerDied(suspect)) = mutex.lock() else { panic!("nobody was told") };
            suspect.into_guard().mark_consistent();
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(20));
        let killed = Instant::now();
        other.kill();
        let took = waiter.join().unwrap().saturating_duration_since(killed);
        println!("heard after {took:?}");
        assert!(took < Duration::from_millis(40), "{took:?}");
        done.store(1, Ordering::Relaxed);
    });
}

/// When the agent dies its sleepers are woken, and look by themselves from then on.
#[test]
fn without_its_agent_a_domain_looks_by_itself() {
    let test = "without_its_agent_a_domain_looks_by_itself";
    if let Some((..)) = role() {
        abort_on_panic();
        let segment = open(&support::directory().unwrap(), 1);
        let agent = segment.stand_for_domain().unwrap();
        say("stands");
        loop {
            agent.watch(Duration::from_secs(1));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let host = options(directory.path()).create("s").unwrap();
    let guest = open(directory.path(), 1);
    let mut agent = Actor::start(test, "agent", directory.path());
    assert_eq!(agent.hear(), "stands");
    assert!(matches!(guest.stand_for_domain(), Err(Error::AgentLives { domain: 1, .. })));
    let held = host.mutex("m", 0_u64).unwrap();
    let held = held.lock().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            drop(guest.open_mutex::<u64>("m").unwrap().lock().unwrap());
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(20));
        agent.kill();
        std::thread::sleep(Duration::from_millis(5));
        let released = Instant::now();
        drop(held);
        let took = waiter.join().unwrap().saturating_duration_since(released);
        println!("{took:?} without an agent");
        assert!(took < Duration::from_millis(40), "{took:?}");
    });
    guest.stand_for_domain().unwrap();
}

/// A guest that has started again has another home: who was there before is dead.
#[test]
fn a_new_home_buries_who_was_in_the_old_one() {
    let (directory, first, second) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
    let (directory, first, second) = (directory.unwrap(), first.unwrap(), second.unwrap());
    let host = options(directory.path()).create("s").unwrap();
    let open = |home: &Path| {
        Options::new().directory(home).open_device(&directory.path().join("s"), DomainId::Number(1)).unwrap()
    };
    let before = open(first.path());
    let held = before.mutex("m", 0_u64).unwrap();
    core::mem::forget(held.lock().unwrap());
    let name = me(&before);
    assert!(!is_dead(&host, name));
    let after = open(second.path());
    assert!(is_dead(&host, name) && is_dead(&after, name));
    assert!(matches!(after.open_mutex::<u64>("m").unwrap().lock(), Err(LockError::OwnerDied(_))));
}
