//! Controls: what goes wrong on purpose, and must be found.

use crosslock_baremetal::options::Task;
use crosslock_baremetal::report::{Check, Line, text};
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, spin_hint};
use crosslock_core::{RawPvQSpin, RawQSpin, RawTas};
use crosslock_kernel::{Problem, RawSpinLock, Report, Severity};

use crate::arch::{interrupts, irq};
use crate::console::{self, Status};
use crate::interrupts::Irq;
use crate::platform::{self, Kernel};
use crate::scene::{self, Scene};
use crate::{OPTIONS, clock, cpu, watchdog};

/// Problems that were reported, as far as they were expected.
static REPORTED: AtomicU32 = AtomicU32::new(0);

/// How long a kick may take, in milliseconds.
const PATIENCE_MS: u64 = 3000;

/// Whether to be stuck is what is asked for.
pub(crate) fn expects_stuck() -> bool {
    OPTIONS.get().task == Task::LostKick
}

/// The locks' own checks have found something.
pub(crate) fn reported(report: &Report) {
    console::log(format_args!("{report}"));
    let expected = match (OPTIONS.get().task, report.problem) {
        (Task::Deadlock, Problem::Recursion) | (Task::WrongOrder, Problem::WrongOrder) => true,
        (_, _) => false,
    };
    let both = report.other.is_some();
    if expected && both {
        REPORTED.fetch_add(1, Ordering::Relaxed);
    }
    if report.problem.severity() == Severity::Fatal || !expected {
        let other = report.other.map_or("no other place", |other| other.at.file());
        let line = report.other.map_or(0, |other| other.at.line());
        let passed = expected && both;
        console::report(&Line::Check(Check {
            name: text(format_args!("{}", OPTIONS.get().task)),
            lock: text(format_args!("")),
            passed,
            seen: text(format_args!(
                "{}: line {} after {other} line {line}",
                report.problem,
                report.at.line()
            )),
        }));
        console::report(&Line::End { failures: u32::from(!passed) });
        console::exit(if passed { Status::Passed } else { Status::Failed });
    }
}

/// Two locks whose guards end in the order in which they began.
pub(crate) fn wrong_order() -> u32 {
    let one: RawSpinLock<Kernel<RawQSpin>, ()> = RawSpinLock::new(());
    let other: RawSpinLock<Kernel<RawQSpin>, ()> = RawSpinLock::new(());
    let outer = one.lock_irqsave();
    let inner = other.lock_irqsave();
    drop(outer);
    let stayed_off = !irq::are_enabled();
    drop(inner);
    let are_on = irq::are_enabled();
    let reports = REPORTED.load(Ordering::Relaxed);
    check(
        "wrong-order",
        reports == 1 && stayed_off && are_on,
        format_args!(
            "reported {reports} times; interrupts off until the last guard: {stayed_off}, on after it: {are_on}"
        ),
    )
}

/// A handler that takes the lock of the code that it has interrupted. Does not come back where that is found, nor where it is
/// not: then the watchdog ends it.
pub(crate) fn deadlock() -> u32 {
    struct Handler<'a>(&'a RawSpinLock<Kernel<RawTas>, u32>);

    impl Scene for Handler<'_> {
        fn hardirq(&self, irq: Irq) {
            if irq == Irq::Low {
                *self.0.lock() += 1;
            }
        }
    }

    let lock = RawSpinLock::new(0);
    scene::play(&Handler(&lock), 1, &|_| {
        let mut guard = lock.lock();
        interrupts::send(0, Irq::Low);
        clock::wait_us(1000);
        *guard += 1;
    });
    check("deadlock", false, format_args!("the handler has not been stopped"))
}

/// A waiter halts, and is kicked; or is not, which the watchdog is to find out. Only the first CPU's timer runs.
pub(crate) fn kick(lose: bool) -> u32 {
    let lock: RawSpinLock<Kernel<RawPvQSpin>, ()> = RawSpinLock::new(());
    let (ready, latency) = (AtomicU32::new(0), AtomicU64::new(0));
    let before = totals();
    watchdog::set(PATIENCE_MS);
    crate::smp::run(2, &|number| {
        if number == 1 {
            while ready.load(Ordering::Acquire) == 0 {
                spin_hint();
            }
            // With interrupts on: a kick that is an interrupt would not end the HLT otherwise.
            drop(lock.lock());
            ready.store(2, Ordering::Release);
        } else {
            let guard = lock.lock();
            ready.store(1, Ordering::Release);
            while cpu::all()[1].halted.load(Ordering::Acquire) == 0 {
                spin_hint();
            }
            // It says so before the HLT: let it get there.
            clock::wait_us(2000);
            platform::KICKS_TO_LOSE.store(u64::from(lose), Ordering::Relaxed);
            let start = clock::Instant::now();
            drop(guard);
            while ready.load(Ordering::Acquire) != 2 {
                spin_hint();
            }
            latency.store(start.elapsed_ns(), Ordering::Relaxed);
        }
    });
    watchdog::set(0);
    let after = totals();
    let (halts, kicks) = (after.0 - before.0, after.1 - before.1);
    let us = latency.load(Ordering::Relaxed) / 1000;
    check(
        if lose { "lost-kick" } else { "kick" },
        !lose && kicks == 1 && halts == 1,
        format_args!("{halts} halts, {kicks} kicks; {us} us from the unlock until the waiter has been in"),
    )
}

/// Halts and kicks of all CPUs.
pub(crate) fn totals() -> (u64, u64) {
    let sum = |counter: fn(&cpu::Cpu) -> &AtomicU64| {
        cpu::all().iter().map(|cpu| counter(cpu).load(Ordering::Relaxed)).sum::<u64>()
    };
    (sum(|cpu| &cpu.halts), sum(|cpu| &cpu.kicks))
}

/// Reports a check; 1 if it has failed.
pub(crate) fn check(name: &str, passed: bool, seen: core::fmt::Arguments<'_>) -> u32 {
    check_of(name, "", passed, seen)
}

/// The same about a lock.
pub(crate) fn check_of(name: &str, lock: &str, passed: bool, seen: core::fmt::Arguments<'_>) -> u32 {
    console::report(&Line::Check(Check {
        name: text(format_args!("{name}")),
        lock: text(format_args!("{lock}")),
        passed,
        seen: text(seen),
    }));
    u32::from(!passed)
}
