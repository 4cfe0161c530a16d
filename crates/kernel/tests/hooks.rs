//! Hooks are told of every operation, in order, with the caller's place and how the lock is taken.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use std::cell::RefCell;
use std::panic::Location;
use std::thread_local;

use crosslock_core::{ConstContext, Hooks, RawQSpin};
use crosslock_kernel::hosted::{Cpu, Hosted, NotPreemptible, Preemptible, Setup};
use crosslock_kernel::{Access, FormKind, LockHooks, Operation, RawSpinLock, RwSpinLock, SpinLock};

thread_local! {
    static TOLD: RefCell<Vec<(&'static str, Operation)>> = const { RefCell::new(Vec::new()) };
}

fn tell(what: &'static str, operation: &Operation) {
    TOLD.with_borrow_mut(|told| told.push((what, *operation)));
}

/// A validator, as the kernel layers see it.
struct Validator;

impl LockHooks for Validator {
    fn acquire(operation: &Operation) {
        tell("acquire", operation);
    }
    fn contended(operation: &Operation) {
        tell("contended", operation);
    }
    fn acquired(operation: &Operation) {
        tell("acquired", operation);
    }
    fn abandoned(operation: &Operation) {
        tell("abandoned", operation);
    }
    fn release(operation: &Operation) {
        tell("release", operation);
    }
}

struct Validated;

impl Setup for Validated {
    type Arch = RawQSpin;
    type Preemption = NotPreemptible;
    type Hooks = Validator;
}

struct ValidatedRealTime;

impl Setup for ValidatedRealTime {
    type Arch = RawQSpin;
    type Preemption = Preemptible;
    type Hooks = Validator;

    fn report(_: &crosslock_kernel::Report) {}
}

type P = Hosted<Validated>;

/// What was told since the last look: the points, their lines, and the last operation.
fn told() -> (Vec<(&'static str, u32)>, Option<Operation>) {
    let all = TOLD.take();
    let last = all.last().map(|(_, operation)| *operation);
    (all.into_iter().map(|(what, operation)| (what, operation.at.line())).collect(), last)
}

#[test]
fn each_operation_is_told_with_its_line() {
    let _cpu = Cpu::claim().unwrap();
    let lock = RawSpinLock::<P, _>::new(0);
    let line = line!() + 1;
    let guard = lock.lock_irqsave_nested(3);
    assert!(lock.try_lock().is_none());
    let (points, last) = told();
    assert_eq!(points, [("acquire", line), ("acquired", line)], "a failed attempt shows as nothing");
    let last = last.unwrap();
    assert_eq!((last.subclass, last.form, last.access), (3, FormKind::IrqSave, Access::Exclusive));
    assert!(!last.is_try && !last.sleeps);
    assert_eq!(last.made_at.is_some(), cfg!(feature = "debug-checks"));
    guard.unlock();
    assert_eq!(told().0, [("release", line!() - 1)]);

    let attempt = lock.try_lock_bh();
    let (points, last) = told();
    assert_eq!(points, [("acquire", line!() - 2), ("acquired", line!() - 2)]);
    assert!(last.is_some_and(|last| last.is_try && last.form == FormKind::Bh));
    drop(attempt);
    assert_eq!(told().0.len(), 1);
}

#[test]
fn readers_and_sleepers_are_told_as_such() {
    let _cpu = Cpu::claim().unwrap();
    let rw = RwSpinLock::<P, _>::new(0);
    rw.read().unlock();
    assert!(told().1.is_some_and(|last| last.access == Access::Shared));
    rw.write_irq().unlock();
    assert!(told().1.is_some_and(|last| last.access == Access::Exclusive && last.form == FormKind::Irq));
    let sleeping = SpinLock::<Hosted<ValidatedRealTime>, _>::new(0);
    sleeping.lock().unlock();
    assert!(told().1.is_some_and(|last| last.sleeps));
}

#[test]
fn contention_is_told_before_the_wait() {
    let _cpu = Cpu::claim().unwrap();
    let lock = RawSpinLock::<P, _>::new(0);
    let guard = lock.lock();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            drop(lock.lock());
            told().0.into_iter().map(|(what, _)| what).collect::<Vec<_>>()
        });
        while !lock.is_contended() {
            std::thread::yield_now();
        }
        drop(guard);
        assert_eq!(waiter.join().unwrap(), ["acquire", "contended", "acquired", "release"]);
    });
}

#[test]
fn a_lock_that_is_never_had_is_told_as_abandoned() {
    let _cpu = Cpu::claim().unwrap();
    let lock = SpinLock::<Hosted<ValidatedRealTime>, _>::new(0);
    let guard = lock.lock();
    told();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.lock()))).is_err());
    let points: Vec<_> = told().0.into_iter().map(|(what, _)| what).collect();
    match cfg!(feature = "debug-checks") {
        // Found before anybody is told.
        true => assert!(points.is_empty(), "{points:?}"),
        false => assert_eq!(points, ["acquire", "contended", "abandoned"]),
    }
    drop(guard);
}

/// Hooks that were made for `crosslock_core` serve here, too.
#[test]
fn core_hooks_are_lock_hooks() {
    struct Core;
    thread_local! {
        static LINES: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }
    impl Hooks for Core {
        fn acquired(&self, _: usize, at: &'static Location<'static>) {
            LINES.with_borrow_mut(|lines| lines.push(at.line()));
        }
    }
    impl ConstContext for Core {
        const CONTEXT: Self = Self;
    }
    struct Counted;
    impl Setup for Counted {
        type Arch = RawQSpin;
        type Preemption = NotPreemptible;
        type Hooks = Core;
    }
    let _cpu = Cpu::claim().unwrap();
    let lock = RawSpinLock::<Hosted<Counted>, _>::new(0);
    drop(lock.lock());
    assert_eq!(LINES.take(), [line!() - 1]);
}
