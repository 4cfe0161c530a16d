//! Critical sections under load: four CPUs, interrupted all the time, in every form, over every lock.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::hosted::{
    Cpu, Error, Hosted, NotPreemptible, Setup, Uniprocessor, interrupt, nmi_interrupt, on_nmi, open_softirq,
    request_irq,
};
use crosslock_kernel::{
    ArchSpinLock, ExcludesItself, NoHooks, Platform, Problem, RawSpinLock, Report, RwSpinLock, Up,
    raise_softirq,
};

/// A count that is right only if one at a time counts, and that notices two.
struct Witness {
    inside: AtomicU32,
    value: UnsafeCell<u64>,
    violations: AtomicU64,
    visits: AtomicU64,
}

// SAFETY: guarded by the lock under test; where that fails, the test does.
unsafe impl Sync for Witness {}

impl Witness {
    const fn new() -> Self {
        Self {
            inside: AtomicU32::new(0),
            value: UnsafeCell::new(0),
            violations: AtomicU64::new(0),
            visits: AtomicU64::new(0),
        }
    }

    fn visit(&self) {
        if self.inside.swap(1, Ordering::Relaxed) != 0 {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: under the lock. Volatile: the compiler must not make one step of it.
        let value = unsafe { self.value.get().read_volatile() };
        crosslock_core::primitive::spin_hint();
        // SAFETY: as above.
        unsafe { self.value.get().write_volatile(value + 1) };
        self.inside.store(0, Ordering::Relaxed);
        self.visits.fetch_add(1, Ordering::Relaxed);
    }

    /// How many visits there were.
    fn check(&self) -> u64 {
        let visits = self.visits.load(Ordering::Relaxed);
        assert_eq!(self.violations.load(Ordering::Relaxed), 0, "two at a time");
        // SAFETY: all visitors have left.
        assert_eq!(unsafe { self.value.get().read() }, visits, "a count was lost");
        visits
    }
}

struct With<A>(PhantomData<fn() -> A>);

impl<A: ArchSpinLock<Hosted<Self>> + ExcludesItself + 'static> Setup for With<A> {
    type Arch = A;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;

    /// One order is wrong on purpose.
    fn report(report: &Report) {
        if report.problem == Problem::WrongOrder {
            WRONG_ORDERS.fetch_add(1, Ordering::Relaxed);
            return;
        }
        eprintln!("{report}");
        // The control of a lock that does not lock may panic: it has no handlers.
        if report.count.in_task() && A::NAME == "open" {
            NOTICED.store(1, Ordering::Relaxed);
            return;
        }
        std::process::abort();
    }
}

/// Whether the debug checks have noticed the lock that does not lock.
static NOTICED: AtomicU32 = AtomicU32::new(0);
/// How often one was reported.
static WRONG_ORDERS: AtomicU64 = AtomicU64::new(0);

/// The locks of one run, each with its witness; what may take them is in their names.
struct Locks<S: Setup> {
    task: RawSpinLock<Hosted<S>, ()>,
    softirq: RawSpinLock<Hosted<S>, ()>,
    hardirq: RawSpinLock<Hosted<S>, ()>,
    inner: RawSpinLock<Hosted<S>, ()>,
    rw: RwSpinLock<Hosted<S>, ()>,
    seen: [Witness; 4],
    reads: AtomicU64,
    /// How often handlers have run.
    hardirqs: AtomicU64,
    softirqs: AtomicU64,
}

impl<S: Setup> Locks<S> {
    const fn new() -> Self {
        Self {
            task: RawSpinLock::new(()),
            softirq: RawSpinLock::new(()),
            hardirq: RawSpinLock::new(()),
            inner: RawSpinLock::new(()),
            rw: RwSpinLock::new(()),
            seen: [const { Witness::new() }; 4],
            reads: AtomicU64::new(0),
            hardirqs: AtomicU64::new(0),
            softirqs: AtomicU64::new(0),
        }
    }

    fn read(&self, guard: impl Sized) {
        let before = self.seen[3].inside.load(Ordering::Relaxed);
        crosslock_core::primitive::spin_hint();
        if before != 0 || self.seen[3].inside.load(Ordering::Relaxed) != 0 {
            self.seen[3].violations.fetch_add(1, Ordering::Relaxed);
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        drop(guard);
    }

    fn in_task(&self, round: u32) {
        let [task, softirq, hardirq, rw] = &self.seen;
        match round % 16 {
            0 => visit(task, self.task.lock()),
            1 => visit(task, self.task.lock_nested(1)),
            2 => visit_if(task, self.task.try_lock()),
            3 => visit(softirq, self.softirq.lock_bh()),
            4 => visit_if(softirq, self.softirq.try_lock_bh()),
            5 => visit(hardirq, self.hardirq.lock_irqsave()),
            6 => visit_if(hardirq, self.hardirq.try_lock_irqsave()),
            7 => visit(hardirq, self.hardirq.lock_irq()),
            8 => visit_if(hardirq, self.hardirq.try_lock_irq()),
            9 => visit(rw, self.rw.write_irqsave()),
            10 => visit_if(rw, self.rw.try_write_irq()),
            // A reader that a handler interrupts which reads, too.
            11 => self.read(self.rw.read()),
            12 => self.read(self.rw.read_bh()),
            13 => self.read(self.rw.read_irqsave()),
            14 => {
                // Two at a time, the outer one first to go. The inner one must be a lock that is always taken with
                // interrupts disabled: its holder could otherwise be interrupted by a handler that waits for
                // `hardirq`.
                let outer = self.hardirq.lock_irqsave();
                let inner = self.inner.lock_irqsave();
                hardirq.visit();
                drop(outer);
                assert!(Hosted::<S>::irqs_disabled());
                drop(inner);
            }
            _ => drop(self.rw.try_read().map(|guard| self.read(guard))),
        }
    }

    fn in_softirq(&self) {
        self.softirqs.fetch_add(1, Ordering::Relaxed);
        visit(&self.seen[1], self.softirq.lock());
        visit(&self.seen[2], self.hardirq.lock_irqsave());
        self.read(self.rw.read());
    }

    fn in_hardirq(&self) {
        self.hardirqs.fetch_add(1, Ordering::Relaxed);
        visit(&self.seen[2], self.hardirq.lock());
        self.read(self.rw.read());
        raise_softirq::<Hosted<S>>(1);
    }
}

fn visit(witness: &Witness, guard: impl Sized) {
    witness.visit();
    drop(guard);
}

fn visit_if(witness: &Witness, guard: Option<impl Sized>) {
    if guard.is_some() {
        witness.visit();
    }
    drop(guard);
}

/// Interrupts the CPUs with these numbers; those that have gone do not mind.
fn pester(numbers: &[AtomicU32]) {
    for number in numbers {
        let Some(cpu) = (number.load(Ordering::Relaxed) as usize).checked_sub(1).and_then(CpuId::new) else {
            continue;
        };
        for result in [interrupt(cpu, 0), nmi_interrupt(cpu)] {
            assert!(matches!(result, Ok(()) | Err(Error::Offline { .. })), "{result:?}");
        }
    }
}

/// How many of each run takes, at least.
const INTERRUPTS: u64 = 2000;

struct Handlers {
    hardirq: fn(),
    softirq: fn(),
}

fn run<S: Setup>(locks: &'static Locks<S>, cpus: usize, rounds: u32, handlers: &Handlers) {
    static NMIS: AtomicU64 = AtomicU64::new(0);
    let _actions = (
        request_irq(0, handlers.hardirq).unwrap(),
        open_softirq(1, handlers.softirq).unwrap(),
        on_nmi(|| {
            NMIS.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap(),
    );
    let (nmis, done) = (NMIS.load(Ordering::Relaxed), AtomicU32::new(0));
    let numbers: Vec<_> = (0..cpus).map(|_| AtomicU32::new(0)).collect();
    let start = Barrier::new(cpus);
    std::thread::scope(|scope| {
        for number in &numbers {
            let (done, start) = (&done, &start);
            scope.spawn(move || {
                let cpu = if S::Arch::SMP { Cpu::claim() } else { Cpu::claim_boot() }.unwrap();
                number.store(u32::try_from(cpu.id().index()).unwrap() + 1, Ordering::Relaxed);
                start.wait();
                let (begin, mut round) = (Instant::now(), 0);
                while round < rounds || locks.hardirqs.load(Ordering::Relaxed) < INTERRUPTS {
                    locks.in_task(round);
                    round += 1;
                    assert!(begin.elapsed() < Duration::from_secs(280), "interrupts do not come");
                }
                number.store(0, Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let begin = Instant::now();
            while (done.load(Ordering::Relaxed) as usize) < cpus {
                if begin.elapsed() > Duration::from_secs(300) {
                    eprintln!("{}: a deadlock", S::Arch::NAME);
                    std::process::abort();
                }
                // Enough is enough: on a slow machine, handlers would leave tasks no time.
                if locks.hardirqs.load(Ordering::Relaxed) < 2 * INTERRUPTS {
                    pester(&numbers);
                }
                std::thread::sleep(Duration::from_micros(20));
            }
        });
    });
    let visits: Vec<_> = locks.seen.iter().map(Witness::check).collect();
    let (reads, nmis) = (locks.reads.load(Ordering::Relaxed), NMIS.load(Ordering::Relaxed) - nmis);
    let sections = visits.iter().sum::<u64>() + reads;
    let (hardirqs, softirqs) =
        (locks.hardirqs.load(Ordering::Relaxed), locks.softirqs.load(Ordering::Relaxed));
    println!(
        "{:9} {sections:8} sections {visits:?} + {reads} reads; {hardirqs} hardirqs, {softirqs} softirqs, {nmis} NMIs",
        S::Arch::NAME
    );
    assert!(sections >= 100_000, "{sections} sections");
    let wrong_orders = WRONG_ORDERS.swap(0, Ordering::Relaxed);
    assert_eq!(wrong_orders >= u64::from(rounds) / 16, cfg!(feature = "debug-checks"), "{wrong_orders}");
    // One softirq serves all interrupts that came while it waited for its lock.
    assert!(softirqs > 0 && nmis > INTERRUPTS / 4, "{softirqs} softirqs, {nmis} NMIs");
}

macro_rules! load {
    ($($setup:ty, $cpus:literal;)*) => {$({
        static LOCKS: Locks<$setup> = Locks::new();
        let handlers = Handlers { hardirq: || LOCKS.in_hardirq(), softirq: || LOCKS.in_softirq() };
        run(&LOCKS, $cpus, 120_000 / $cpus, &handlers);
    })*};
}

/// One after the other: they share the lines.
#[test]
fn every_form_excludes_over_every_lock() {
    load! {
        With<RawTas>, 4;
        With<RawTicket>, 4;
        With<RawMcs>, 4;
        With<RawQSpin>, 4;
        With<RawPvQSpin>, 4;
        With<Up>, 1;
    }
}

/// Negative control: a lock that lets everybody in is noticed by the same witness.
#[test]
fn control_a_lock_that_does_not_lock_is_caught() {
    struct Open;
    // SAFETY: it is not: that is what the test is about. The witness bears it: what it guards is only counted.
    unsafe impl<P> ArchSpinLock<P> for Open {
        const INIT: Self = Self;
        const NAME: &'static str = "open";
        fn acquire(&self, _: &P) -> Result<(), crosslock_kernel::Failure> {
            Ok(())
        }
        fn try_acquire(&self, _: &P) -> bool {
            true
        }
        unsafe fn release(&self, _: &P) -> Result<(), crosslock_core::Corrupted> {
            Ok(())
        }
        fn is_locked(&self) -> bool {
            false
        }
        fn is_contended(&self) -> bool {
            false
        }
    }
    // SAFETY: as above.
    unsafe impl ExcludesItself for Open {}

    static LOCK: RawSpinLock<Hosted<With<Open>>, ()> = RawSpinLock::new(());
    static SEEN: Witness = Witness::new();
    let noticed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let _cpu = Cpu::claim().unwrap();
                    let start = Instant::now();
                    let noticed =
                        || SEEN.violations.load(Ordering::Relaxed) > 0 || NOTICED.load(Ordering::Relaxed) > 0;
                    while !noticed() && start.elapsed().as_secs() < 60 {
                        visit(&SEEN, LOCK.lock());
                    }
                    noticed()
                })
            })
            .collect();
        // With debug checks, a thread panics: the lock that it releases names another owner.
        let noticed: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(cfg!(feature = "debug-checks")))
            .collect();
        noticed.contains(&true)
    });
    assert!(noticed, "nobody noticed");
}

/// Negative control of another kind: a uniprocessor's lock refuses a second CPU, which it could not keep out.
#[test]
fn control_a_second_cpu_cannot_use_a_uniprocessors_lock() {
    static LOCK: RawSpinLock<Hosted<Uniprocessor>, ()> = RawSpinLock::new(());
    let second = std::thread::spawn(|| {
        let _cpu = Cpu::claim().unwrap();
        drop(LOCK.lock());
    });
    assert!(second.join().is_err());
    assert!(!LOCK.is_locked());
}
