//! Each debug check provoked, with both places in its report; and a clean run that provokes none.
#![cfg(all(feature = "hosted", feature = "debug-checks", target_os = "linux"))]

use core::mem::{MaybeUninit, forget};
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::process::Command;
use std::thread_local;

use crosslock_core::RawQSpin;
use crosslock_kernel::hosted::{Cpu, Hosted, NotPreemptible, Preemptible, Setup, interrupt, request_irq};
use crosslock_kernel::{
    Bh, NoHooks, Plain, Problem, RawSpinLock, Report, RwSpinLock, Severity, SpinLock, Up, local_bh_disable,
};

thread_local! {
    static REPORTS: core::cell::RefCell<Vec<Report>> = const { core::cell::RefCell::new(Vec::new()) };
}

/// Keeps the reports of each thread.
struct Recording;

impl Setup for Recording {
    type Arch = RawQSpin;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;
    const MAX_HOLD_NS: u64 = 20_000_000;

    fn report(report: &Report) {
        REPORTS.with_borrow_mut(|reports| reports.push(*report));
    }
}

struct RecordingRealTime;

impl Setup for RecordingRealTime {
    type Arch = RawQSpin;
    type Preemption = Preemptible;
    type Hooks = NoHooks;

    fn report(report: &Report) {
        Recording::report(report);
    }
}

struct RecordingUp;

impl Setup for RecordingUp {
    type Arch = Up;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;

    fn report(report: &Report) {
        Recording::report(report);
    }
}

type Lock<T> = RawSpinLock<Hosted<Recording>, T>;

/// The one report of `provoke`; whether it panicked is as severe as the report says.
#[track_caller]
fn report_of(provoke: impl FnOnce()) -> Report {
    REPORTS.take();
    let panicked = catch_unwind(AssertUnwindSafe(provoke)).is_err();
    let reports = REPORTS.take();
    let [report] = reports[..] else {
        panic!("{} reports: {reports:?}", reports.len());
    };
    assert_eq!(panicked, report.problem.severity() == Severity::Fatal, "{report}");
    report
}

/// Where a report points to in this file: the caller's place, and the other.
fn lines(report: &Report) -> (u32, Option<u32>) {
    let line = |at: &core::panic::Location<'_>| {
        assert!(at.file().ends_with("debug_checks.rs"), "{at}");
        at.line()
    };
    (line(report.at), report.other.map(|other| line(other.at)))
}

#[test]
fn correct_use_is_not_reported() {
    let _cpu = Cpu::claim().unwrap();
    REPORTS.take();
    let (a, b, rw) = (Lock::new(0), Lock::new(0), RwSpinLock::<Hosted<Recording>, _>::new(0));
    for _ in 0..100 {
        let outer = a.lock_irqsave();
        let inner = b.lock_irqsave();
        drop(inner);
        drop(outer);
        // Plain guards may end in any order: hand over hand.
        let first = a.lock();
        let second = b.lock_bh();
        drop(first);
        drop(second);
        *rw.write_irq() += 1;
        assert!(b.try_lock_irq().is_some());
        let held = rw.read();
        assert!(rw.try_write().is_none());
        held.unlock();
    }
    assert!(REPORTS.take().is_empty());
}

#[test]
fn recursion() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let held_at = line!() + 1;
    let held = lock.lock();
    let report = report_of(|| drop(lock.lock()));
    assert_eq!(report.problem, Problem::Recursion);
    assert_eq!(lines(&report), (line!() - 2, Some(held_at)));
    assert_eq!(report.made_at.map(|at| at.line()), Some(held_at - 2));
    assert!(lock.try_lock().is_none(), "an attempt only fails");
    drop(held);
    assert!(lock.try_lock().is_some());
}

#[test]
fn recursion_of_readers_and_writers() {
    let _cpu = Cpu::claim().unwrap();
    let lock = RwSpinLock::<Hosted<Recording>, _>::new(0);
    let read = lock.read();
    assert_eq!(report_of(|| drop(lock.write())).problem, Problem::Recursion);
    assert_eq!(report_of(|| drop(lock.read())).problem, Problem::Recursion, "a writer may come in between");
    drop(read);
    let write = lock.write();
    assert_eq!(report_of(|| drop(lock.read())).problem, Problem::Recursion);
    drop(write);
}

#[test]
fn recursion_on_a_uniprocessor() {
    let _cpu = Cpu::claim_boot().unwrap();
    let lock = RawSpinLock::<Hosted<RecordingUp>, _>::new(0);
    let held = lock.lock();
    let report = report_of(|| drop(lock.lock_irqsave()));
    assert_eq!((report.problem, lines(&report)), (Problem::Recursion, (line!() - 1, Some(line!() - 2))));
    drop(held);
}

#[test]
fn recursion_of_a_sleeping_lock() {
    let _cpu = Cpu::claim().unwrap();
    let lock = SpinLock::<Hosted<RecordingRealTime>, _>::new(0);
    let held = lock.lock();
    let report = report_of(|| drop(lock.lock()));
    assert_eq!((report.problem, lines(&report)), (Problem::Recursion, (line!() - 1, Some(line!() - 2))));
    drop(held);
}

#[test]
fn sleeping_where_nothing_may_sleep() {
    let _cpu = Cpu::claim().unwrap();
    let (raw, sleeping) = (
        RawSpinLock::<Hosted<RecordingRealTime>, _>::new(0),
        SpinLock::<Hosted<RecordingRealTime>, _>::new(0),
    );
    let atomic = raw.lock();
    let report = report_of(|| drop(sleeping.lock()));
    let Problem::SleepInAtomic { count } = report.problem else { panic!("{report}") };
    assert_eq!(count.preempt(), 1);
    drop(atomic);
    let bh = local_bh_disable::<Hosted<RecordingRealTime>>();
    REPORTS.take();
    drop(sleeping.lock());
    assert!(REPORTS.take().is_empty(), "bottom halves do not keep from sleeping");
    drop(bh);
}

#[test]
fn unlock_of_an_unlocked_lock() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    // SAFETY: it is not: the check is to find that out, before anything is changed.
    let report = report_of(|| unsafe { lock.force_unlock::<Plain>() });
    assert_eq!((report.problem, lines(&report)), (Problem::NotLocked, (line!() - 1, None)));
}

#[test]
fn unlock_by_another() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let held_at = line!() + 1;
    let held = lock.lock();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            // SAFETY: it is not: the check is to find that out.
            let report = report_of(|| unsafe { lock.force_unlock::<Plain>() });
            assert!(matches!(report.problem, Problem::NotOwner { .. }), "{report}");
            assert_eq!(lines(&report).1, Some(held_at));
        });
        other.join().unwrap();
    });
    drop(held);
}

#[test]
fn unlock_on_another_cpu() {
    let here = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let held_at = line!() + 1;
    forget(lock.lock());
    let left = here.id().index();
    drop(here);
    let there = Cpu::claim().unwrap();
    // SAFETY: it is not: the check is to find that out.
    let report = report_of(|| unsafe { lock.force_unlock::<Plain>() });
    let Problem::OtherCpu { owner, caller } = report.problem else { panic!("{report}") };
    assert_eq!((owner as usize, caller as usize), (left, there.id().index()));
    assert_eq!(lines(&report).1, Some(held_at));
}

#[test]
fn held_too_long() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let report = report_of(|| {
        let guard = lock.lock();
        std::thread::sleep(core::time::Duration::from_millis(25));
        guard.unlock();
    });
    let Problem::HeldTooLong { ns } = report.problem else { panic!("{report}") };
    assert!(ns >= 25_000_000, "{ns}");
    let (at, other) = lines(&report);
    assert_eq!(other, Some(at - 2));
    assert!(!lock.is_locked());
}

#[test]
fn guards_dropped_in_the_wrong_order() {
    let _cpu = Cpu::claim().unwrap();
    let (a, b, c) = (Lock::new(0), Lock::new(0), Lock::new(0));
    let outer_at = line!() + 1;
    let outer = a.lock_irqsave();
    let plain = c.lock();
    let inner = b.lock_irqsave();
    let report = report_of(|| drop(outer));
    assert_eq!((report.problem, lines(&report)), (Problem::WrongOrder, (outer_at, Some(outer_at + 2))));
    REPORTS.take();
    drop(inner);
    drop(plain);
    assert!(REPORTS.take().is_empty(), "the rest is in order");

    let outer = a.lock_bh();
    let inner = b.lock_irqsave();
    assert_eq!(report_of(|| drop(outer)).problem, Problem::WrongOrder);
    drop(inner);
}

#[test]
fn the_irq_form_where_interrupts_are_disabled() {
    let _cpu = Cpu::claim().unwrap();
    let (a, b) = (Lock::new(0), Lock::new(0));
    let outer = a.lock_irqsave();
    let report = report_of(|| drop(b.lock_irq()));
    assert_eq!((report.problem, lines(&report).0), (Problem::IrqsAlreadyDisabled, line!() - 1));
    assert!(<Hosted<Recording> as crosslock_kernel::Platform>::irqs_disabled(), "and they stay so");
    drop(outer);
}

#[test]
fn memory_that_is_no_lock() {
    let _cpu = Cpu::claim().unwrap();
    // SAFETY: a lock consists of atomics, an optional reference and an integer: zero is a value of each.
    let lock = unsafe { MaybeUninit::<Lock<u32>>::zeroed().assume_init() };
    let report = report_of(|| drop(lock.lock()));
    assert_eq!((report.problem, report.made_at), (Problem::BadMagic { found: 0 }, None));
}

/// More than are noted, given up in every order of a simple kind: afterwards nothing is left over.
#[test]
fn many_locks_at_a_time() {
    let _cpu = Cpu::claim().unwrap();
    REPORTS.take();
    let locks: Vec<_> = (0..80).map(|_| Lock::new(0)).collect();
    for held in [1, 2, 31, 32, 33, 34, 40, 80] {
        for step in [1, 3, 7, 29] {
            let mut guards: Vec<_> = locks[..held].iter().map(|lock| lock.lock()).collect();
            let mut next = 0;
            while !guards.is_empty() {
                next = (next + step) % guards.len();
                drop(guards.remove(next));
            }
            // Each can be had again, without being taken for one that is held.
            locks[..held].iter().for_each(|lock| drop(lock.lock()));
            let outer = locks[0].lock();
            assert_eq!(report_of(|| drop(locks[0].lock())).problem, Problem::Recursion);
            drop(outer);
        }
    }
    assert!(REPORTS.take().is_empty());
}

#[test]
fn a_forgotten_guard_of_each_form_can_be_given_up() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    forget(lock.lock_bh());
    // SAFETY: forgotten just before, of the same form, on this CPU.
    unsafe { lock.force_unlock::<Bh>() };
    assert!(lock.try_lock().is_some());
    assert_eq!(<Hosted<Recording> as crosslock_kernel::Platform>::preempt_count().bits(), 0);
}

/// The classic: a lock taken without `_irqsave`, and in a handler that interrupts its holder. In a process of its own,
/// which ends with the report: the handler could only wait for ever.
#[test]
fn a_plain_lock_against_its_handler() {
    const CHILD: &str = "CROSSLOCK_DEADLOCK";
    static LOCK: RawSpinLock<Hosted, u32> = RawSpinLock::new(0);
    const HANDLER_LINE: u32 = line!() + 2;
    fn handler() {
        *LOCK.lock() += 1;
    }
    if std::env::var_os(CHILD).is_some() {
        let cpu = Cpu::claim().unwrap();
        let _action = request_irq(0, handler).unwrap();
        // The correct form first: the handler waits until it is over.
        let guard = LOCK.lock_irqsave();
        interrupt(cpu.id(), 0).unwrap();
        drop(guard);
        assert_eq!(*LOCK.lock_irqsave(), 1);
        let _guard = LOCK.lock(); // HOLDER
        interrupt(cpu.id(), 0).unwrap();
        unreachable!("the handler has returned");
    }
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this)
        .args(["--exact", "a_plain_lock_against_its_handler", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("recursion"), "{said}");
    let holder =
        include_str!("debug_checks.rs").lines().position(|line| line.ends_with("// HOLDER")).unwrap() + 1;
    for line in [HANDLER_LINE as usize, holder] {
        assert!(said.contains(&format!("debug_checks.rs:{line}:")), "line {line} is not in:\n{said}");
    }
    assert!(said.contains("hardirq 1"), "{said}");
}

/// The same, wherever in the lock operations the handler comes: what is not yet noted as held is noted as about to be.
#[test]
fn a_plain_lock_against_its_handler_at_any_instruction() {
    const CHILD: &str = "CROSSLOCK_DEADLOCK_ANYWHERE";
    static LOCK: RawSpinLock<Hosted, u32> = RawSpinLock::new(0);
    if std::env::var_os(CHILD).is_some() {
        let held = Cpu::claim().unwrap();
        let cpu = held.id();
        let _action = request_irq(0, || drop(LOCK.lock())).unwrap();
        std::thread::spawn(move || {
            loop {
                interrupt(cpu, 0).unwrap();
            }
        });
        let end = std::time::Instant::now() + core::time::Duration::from_secs(20);
        while std::time::Instant::now() < end {
            drop(LOCK.lock());
        }
        unreachable!("no interrupt came inside");
    }
    let this = std::env::current_exe().unwrap();
    for _ in 0..20 {
        let mut child = Command::new(&this)
            .args(["--exact", "a_plain_lock_against_its_handler_at_any_instruction", "--nocapture"])
            .env(CHILD, "1")
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed().as_secs() > 40 {
                child.kill().unwrap();
                panic!("it hangs");
            }
            std::thread::sleep(core::time::Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("recursion") && said.contains("held since"), "{}: {said:?}", output.status);
    }
}
