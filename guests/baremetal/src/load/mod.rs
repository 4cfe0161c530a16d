//! Locks under load: sections that check that they are alone, in tasks and in the interrupts of each form.

use crosslock_baremetal::options::{Lock, Options};
use crosslock_baremetal::report::{Events, Line, Run, text};
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, spin_hint};
use crosslock_core::{Corrupted, Event, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::{ArchSpinLock, Failure, Up, raise_softirq};

use crate::arch::interrupts;
use crate::clock::Instant;
use crate::control::{check, totals};
use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::Irq;
use crate::platform::{Kernel, Plain};
use crate::scene::{self, Scene};
use crate::{CHOICE, console, watchdog};

mod form;
mod subject;

use form::{Form, Rival};
use subject::{Section, Subject};

/// A lock that is used for a while.
struct Load<L: ArchSpinLock<Kernel<L>> + 'static> {
    subject: Subject<L>,
    rival: Rival,
    interrupts: AtomicU64,
    violations: AtomicU64,
    written: AtomicU64,
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Load<L> {
    fn new(form: Form, rival: Rival) -> Self {
        Self {
            subject: Subject::new(form),
            rival,
            interrupts: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// One section of a handler.
    fn handler(&self) {
        let Section { right, wrote } = self.subject.handler();
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.add(u64::from(!right), u64::from(wrote));
    }

    fn add(&self, violations: u64, written: u64) {
        self.violations.fetch_add(violations, Ordering::Relaxed);
        self.written.fetch_add(written, Ordering::Relaxed);
    }
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Scene for Load<L> {
    fn hardirq(&self, irq: Irq) {
        if matches!(irq, Irq::Timer | Irq::Low) {
            match self.rival {
                Rival::Nobody => {}
                Rival::Softirqs => raise_softirq::<Plain>(0),
                Rival::Hardirqs => self.handler(),
            }
        }
    }

    fn softirq(&self, _vector: u32) {
        self.handler();
    }
}

/// When a load ends, at the latest.
#[derive(Clone, Copy, Debug)]
struct Until {
    /// After so many sections of tasks, all CPUs together.
    sections: u64,
    /// After so many milliseconds of the first CPU.
    ms: u32,
    /// So many milliseconds before that do not count: fair locks are fast until each CPU has been preempted once.
    warm_up_ms: u32,
}

/// How much longer than it should a load may take, in milliseconds: owners may be preempted for long.
const GRACE_MS: u64 = 30_000;

/// An interrupt to the next CPU once in so many sections of a task.
const SECTIONS_PER_INTERRUPT: u64 = 1024;

/// Puts a lock under load, and reports it; how many violations there were.
fn run<L: ArchSpinLock<Kernel<L>> + 'static>(
    form: Form,
    rival: Rival,
    until: Until,
    options: &Options,
) -> u64 {
    let cpus = options.cpus as usize;
    let own = until.sections.div_ceil(u64::from(options.cpus));
    let load = Load::<L>::new(form, rival);
    let [done, before] = [const { [const { AtomicU64::new(0) }; MAX_CPUS] }; 2];
    let stop = AtomicU32::new(0);
    let ns = AtomicU64::new(0);
    let [warm_up, end] = [until.warm_up_ms, until.warm_up_ms + until.ms].map(|ms| u64::from(ms) * 1_000_000);
    let (events, ticks, (halts, kicks)) = (events(), ticks(), totals());
    watchdog::set(u64::from(until.warm_up_ms + until.ms) + GRACE_MS);
    scene::play(&load, cpus, &|number| {
        if number != 0 {
            interrupts::start_timer(options.hz);
        }
        let start = Instant::now();
        let mut from = (warm_up == 0).then_some(0);
        let (mut count, mut violations, mut written) = (0, 0, 0);
        loop {
            if count >= own || stop.load(Ordering::Relaxed) != 0 {
                break;
            }
            if number == 0 {
                let now = start.elapsed_ns();
                if from.is_none() && now >= warm_up {
                    from = Some(now);
                    for (before, done) in before.iter().zip(&done) {
                        before.store(done.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                }
                if now >= end {
                    stop.store(1, Ordering::Relaxed);
                    break;
                }
            }
            let Section { right, wrote } = load.subject.task(count);
            count += 1;
            done[number].store(count, Ordering::Relaxed);
            violations += u64::from(!right);
            written += u64::from(wrote);
            if rival != Rival::Nobody && count % SECTIONS_PER_INTERRUPT == 0 {
                interrupts::send((number + 1) % cpus, Irq::Low);
            }
        }
        if number == 0 {
            ns.store(start.elapsed_ns() - from.unwrap_or(0), Ordering::Relaxed);
        }
        load.add(violations, written);
        // The first CPU's goes on for the watchdog.
        if number != 0 {
            interrupts::start_timer(0);
        }
    });
    watchdog::set(0);
    let counted = || before.iter().zip(&done).take(cpus);
    let done = || counted().map(|(from, to)| to.load(Ordering::Relaxed) - from.load(Ordering::Relaxed));
    let (sections, interrupts) = (done().sum::<u64>(), load.interrupts.load(Ordering::Relaxed));
    let mut violations = load.violations.load(Ordering::Relaxed);
    // What is missing, or too much, in the end.
    for number in load.subject.written() {
        violations += number.abs_diff(load.written.load(Ordering::Relaxed));
    }
    let (halts_after, kicks_after) = totals();
    console::report(&Line::Run(Run {
        lock: text(format_args!("{}", L::NAME)),
        form: text(format_args!("{}", form.name())),
        cpus: options.cpus,
        sections,
        interrupts,
        violations,
        ns: ns.load(Ordering::Relaxed),
        least: done().min().unwrap_or(0),
        most: done().max().unwrap_or(0),
        ticks: self::ticks() - ticks,
        halts: halts_after - halts,
        kicks: kicks_after - kicks,
        events: Events(core::array::from_fn(|n| self::events()[n] - events[n])),
    }));
    violations
}

/// All locks' counters, of all CPUs.
fn events() -> [u64; Event::COUNT] {
    core::array::from_fn(|n| cpu::all().iter().map(|cpu| cpu.events[n].load(Ordering::Relaxed)).sum())
}

/// Timer interrupts of all CPUs.
fn ticks() -> u64 {
    cpu::all().iter().map(|cpu| cpu.ticks.load(Ordering::Relaxed)).sum()
}

fn run_lock(lock: Lock, form: Form, rival: Rival, until: Until, options: &Options) -> u64 {
    match lock {
        Lock::Tas => run::<RawTas>(form, rival, until, options),
        Lock::Ticket => run::<RawTicket>(form, rival, until, options),
        Lock::Mcs => run::<RawMcs>(form, rival, until, options),
        Lock::Queued => run::<RawQSpin>(form, rival, until, options),
        Lock::Paravirtual => run::<RawPvQSpin>(form, rival, until, options),
        Lock::Up => run::<Up>(form, rival, until, options),
        Lock::Chosen => run_lock(CHOICE.get().1, form, rival, until, options),
    }
}

/// Every lock in every form; how many of them have failed.
pub(crate) fn forms(options: &Options) -> u32 {
    let until = Until { sections: options.sections, ms: options.ms, warm_up_ms: 0 };
    let mut failures = 0;
    for lock in (0..options.rounds).flat_map(|_| options.locks()) {
        for form in Form::ALL {
            failures += u32::from(run_lock(lock, form, form.rival(), until, options) != 0);
        }
    }
    failures
}

/// Every lock for a fixed time; how many have failed. Handlers let it alone: where each hand-over waits for a CPU, four handlers a
/// hundred times a second would have the lock all the time, and tasks never.
pub(crate) fn throughput(options: &Options) -> u32 {
    let until = Until { sections: u64::MAX, ms: options.ms, warm_up_ms: options.warm_up_ms };
    let run = |lock| u32::from(run_lock(lock, Form::IrqSave, Rival::Nobody, until, options) != 0);
    (0..options.rounds).flat_map(|_| options.locks()).map(run).sum()
}

/// How long `Broken` waits between test and set.
const ROOM_TURNS: u32 = 16;

/// How often `Broken` is tried: on a busy machine its CPUs may not run at the same time for a while.
const BROKEN_ATTEMPTS: u32 = 200;

/// A test and a set, with room for another one in between.
struct Broken(AtomicU32);

// SAFETY: none: it does not exclude. What it guards here are atomics, so nothing comes of it but wrong numbers.
unsafe impl ArchSpinLock<Kernel<Broken>> for Broken {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(AtomicU32::new(0));
    const NAME: &'static str = "broken";

    fn acquire(&self, cx: &Kernel<Self>) -> Result<(), Failure> {
        while !self.try_acquire(cx) {
            spin_hint();
        }
        Ok(())
    }

    fn try_acquire(&self, _cx: &Kernel<Self>) -> bool {
        let free = self.0.load(Ordering::Acquire) == 0;
        if free {
            (0..ROOM_TURNS).for_each(|_| spin_hint());
            self.0.store(1, Ordering::Relaxed);
        }
        free
    }

    unsafe fn release(&self, _cx: &Kernel<Self>) -> Result<(), Corrupted> {
        self.0.store(0, Ordering::Release);
        Ok(())
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn is_contended(&self) -> bool {
        false
    }
}

/// Control: the load must find out that a lock does not lock.
pub(crate) fn broken(options: &Options) -> u32 {
    let until = Until { sections: u64::MAX, ms: options.ms, warm_up_ms: 0 };
    let mut attempts =
        (0..BROKEN_ATTEMPTS).map(|_| run::<Broken>(Form::IrqSave, Rival::Hardirqs, until, options));
    let violations = attempts.find(|&violations| violations > 0).unwrap_or(0);
    check("broken", violations > 0, format_args!("{violations} violations of a lock that does not lock"))
}
