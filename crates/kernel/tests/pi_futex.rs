//! The sleeping lock of the hosted platform: it excludes, lends priority, and outlives its owners.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crosslock_core::RawQSpin;
use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_kernel::hosted::{Cpu, Hosted, Preemptible, RealTime, Setup, interrupt, request_irq};
use crosslock_kernel::{NoHooks, Platform, Problem, RawSpinLock, Report, SpinLock};

type P = Hosted<RealTime>;

#[test]
fn four_threads_count_under_interrupts() {
    const ROUNDS: u64 = 25_000;
    static LOCK: SpinLock<P, u64> = SpinLock::<P, _>::new(0);
    static TICKS: RawSpinLock<P, u64> = RawSpinLock::new(0);
    let _action = request_irq(7, || *TICKS.lock() += 1).unwrap();
    let running = AtomicU32::new(4);
    std::thread::scope(|scope| {
        let (send, cpus) = mpsc::channel();
        for _ in 0..4 {
            let (send, running) = (send.clone(), &running);
            scope.spawn(move || {
                let cpu = Cpu::claim().unwrap();
                send.send(cpu.id()).unwrap();
                for round in 0..ROUNDS {
                    match round % 4 {
                        0 => *LOCK.lock() += 1,
                        1 => *LOCK.lock_irqsave() += 1,
                        2 => *LOCK.lock_bh() += 1,
                        _ => {
                            let mut guard = LOCK.lock_irq();
                            *guard += 1;
                            // A raw lock nests in it, and interrupts come all the same.
                            *TICKS.lock_irqsave() += 0;
                        }
                    }
                }
                assert_eq!(P::preempt_count().bits(), 0);
                running.fetch_add(1u32.wrapping_neg(), Ordering::Relaxed);
            });
        }
        let cpus: Vec<_> = cpus.into_iter().take(4).collect();
        while running.load(Ordering::Relaxed) > 0 {
            for cpu in &cpus {
                // Those that have ended are offline.
                let _ = interrupt(*cpu, 7);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    let _cpu = Cpu::claim().unwrap();
    assert_eq!(*LOCK.lock(), 4 * ROUNDS);
    assert!(*TICKS.lock_irqsave() > 0, "no interrupt came");
}

thread_local! {
    static PROBLEMS: std::cell::RefCell<Vec<Problem>> = const { std::cell::RefCell::new(Vec::new()) };
}

struct Recording;

impl Setup for Recording {
    type Arch = RawQSpin;
    type Preemption = Preemptible;
    type Hooks = NoHooks;

    fn report(report: &Report) {
        PROBLEMS.with_borrow_mut(|problems| problems.push(report.problem));
    }
}

type R = Hosted<Recording>;

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} has not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Ends while it holds the lock, once `go` says so.
fn end_inside(lock: &SpinLock<R, u32>, go: impl Fn()) {
    let _cpu = Cpu::claim().unwrap();
    std::mem::forget(lock.lock());
    go();
}

#[test]
fn the_next_owner_is_told_of_a_death() {
    let lock = SpinLock::<R, u32>::new(5);
    // Nobody sleeps: the name of the dead stays in the word.
    std::thread::scope(|scope| scope.spawn(|| end_inside(&lock, || {})).join()).unwrap();
    assert!(lock.is_locked());
    let _cpu = Cpu::claim().unwrap();
    // The thread has been joined, but its number may be in use for a moment longer.
    assert_eq!(*lock.lock(), 5);
    assert_eq!(PROBLEMS.take(), [Problem::OwnerDied]);
    drop(lock.lock());
    assert!(PROBLEMS.take().is_empty(), "told once");
}

#[test]
fn a_sleeper_is_told_of_a_death() {
    let lock = SpinLock::<R, u32>::new(5);
    std::thread::scope(|scope| {
        scope.spawn(|| end_inside(&lock, || until("the sleeper", || lock.is_contended())));
        until("the owner", || lock.is_locked());
        let sleeper = scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            assert_eq!(*lock.lock(), 5);
            PROBLEMS.take()
        });
        assert_eq!(sleeper.join().unwrap(), [Problem::OwnerDied]);
    });
    assert!(!lock.is_locked());
}

/// Of many who come when the owner has died, one is told, and one at a time is inside.
#[test]
fn one_of_many_takes_over() {
    for _ in 0..50 {
        let lock = SpinLock::<R, u32>::new(0);
        std::thread::scope(|scope| scope.spawn(|| end_inside(&lock, || {})).join()).unwrap();
        let told: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let _cpu = Cpu::claim().unwrap();
                        for _ in 0..100 {
                            *lock.lock() += 1;
                        }
                        PROBLEMS.take().len()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
        assert_eq!(lock.into_inner(), 400);
    }
}

/// The priority field of /proc/self/task/TID/stat: negative for real-time priorities, less one.
fn priority(tid: u32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().nth(15).unwrap().parse().unwrap()
}

fn become_real_time(priority: i32) -> bool {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: of the calling thread; the parameter lives.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) == 0 }
}

/// A sleeper with real-time priority lends it to the owner. (Without the right to have such a priority there is nothing
/// to lend: then the test says so, and only checks that nothing is.)
#[test]
fn the_owner_inherits_the_priority_of_a_sleeper() {
    let lock = SpinLock::<P, u32>::new(0);
    let _cpu = Cpu::claim().unwrap();
    let me = thread_id();
    let before = priority(me);
    assert!(before > 0, "not real-time: {before}");
    let guard = lock.lock();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            let allowed = become_real_time(7);
            drop(lock.lock());
            allowed
        });
        until("the sleeper", || lock.is_contended());
        // Time for the kernel between the mark in the word and the loan.
        let start = Instant::now();
        while priority(me) == before && start.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
        let during = priority(me);
        drop(guard);
        assert_eq!(priority(me), before, "given back");
        if sleeper.join().unwrap() {
            assert_eq!(during, -1 - 7);
        } else {
            assert_eq!(during, before);
            eprintln!("no right to a real-time priority: inheritance was not tested");
        }
    });
}

fn thread_id() -> u32 {
    // SAFETY: asks for a number.
    u32::try_from(unsafe { libc::gettid() }).unwrap()
}
