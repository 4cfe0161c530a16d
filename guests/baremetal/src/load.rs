//! Locks under load: sections that check that they are alone, in tasks and in the interrupts of each form.

use core::ops::Deref;

use crosslock_baremetal::options::{Lock, Options};
use crosslock_baremetal::report::{Events, Line, Run, text};
use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, spin_hint};
use crosslock_core::{Corrupted, Event, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::{ArchSpinLock, Failure, RawSpinLock, raise_softirq};

use crate::clock::Instant;
use crate::control::{check, totals};
use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::Irq;
use crate::platform::{Kernel, Plain};
use crate::scene::{self, Scene};
use crate::{CHOICE, apic, console, watchdog};

/// How a task takes the lock, and so what else takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Nested,
    Try,
    Irq,
    TryIrq,
    IrqSave,
    TryIrqSave,
    Bh,
    TryBh,
}

/// Who else takes the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    Nobody,
    Softirqs,
    Hardirqs,
}

impl Form {
    const ALL: [Self; 9] = [
        Self::Plain,
        Self::Nested,
        Self::Try,
        Self::Irq,
        Self::TryIrq,
        Self::IrqSave,
        Self::TryIrqSave,
        Self::Bh,
        Self::TryBh,
    ];

    /// Linux's name, without `spin_`.
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "lock",
            Self::Nested => "lock_nested",
            Self::Try => "trylock",
            Self::Irq => "lock_irq",
            Self::TryIrq => "trylock_irq",
            Self::IrqSave => "lock_irqsave",
            Self::TryIrqSave => "trylock_irqsave",
            Self::Bh => "lock_bh",
            Self::TryBh => "trylock_bh",
        }
    }

    const fn rival(self) -> Rival {
        match self {
            Self::Plain | Self::Nested | Self::Try => Rival::Nobody,
            Self::Bh | Self::TryBh => Rival::Softirqs,
            Self::Irq | Self::TryIrq | Self::IrqSave | Self::TryIrqSave => Rival::Hardirqs,
        }
    }
}

/// What the lock guards: two numbers that are equal outside of sections. Atomics, so that a lock that does not lock is found
/// out by what they say, and not by undefined behaviour.
#[derive(Debug, Default)]
struct Guarded {
    inside: AtomicU32,
    one: AtomicU64,
    other: AtomicU64,
}

impl Guarded {
    /// A section; whether it was alone, and found what the last one had left.
    fn section(&self) -> bool {
        let alone = self.inside.load(Ordering::Relaxed) == 0;
        self.inside.store(1, Ordering::Relaxed);
        let (one, other) = (self.one.load(Ordering::Relaxed), self.other.load(Ordering::Relaxed));
        self.one.store(one + 1, Ordering::Relaxed);
        self.other.store(other + 1, Ordering::Relaxed);
        let undisturbed = self.inside.load(Ordering::Relaxed) == 1;
        self.inside.store(0, Ordering::Relaxed);
        alone && undisturbed && one == other
    }
}

/// A lock that is used for a while.
struct Load<L: ArchSpinLock<Kernel<L>> + 'static> {
    lock: RawSpinLock<Kernel<L>, Guarded>,
    form: Form,
    rival: Rival,
    interrupts: AtomicU64,
    violations: AtomicU64,
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Load<L> {
    fn new(form: Form, rival: Rival) -> Self {
        Self {
            lock: RawSpinLock::new(Guarded::default()),
            form,
            rival,
            interrupts: AtomicU64::new(0),
            violations: AtomicU64::new(0),
        }
    }

    fn judge(&self, right: bool) {
        if !right {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One section of a task.
    #[inline]
    fn task(&self) {
        let lock = &self.lock;
        let right = match self.form {
            Form::Plain => lock.lock().section(),
            Form::Nested => lock.lock_nested(1).section(),
            Form::Irq => lock.lock_irq().section(),
            Form::IrqSave => lock.lock_irqsave().section(),
            Form::Bh => lock.lock_bh().section(),
            Form::Try => insist(|| lock.try_lock()),
            Form::TryIrq => insist(|| lock.try_lock_irq()),
            Form::TryIrqSave => insist(|| lock.try_lock_irqsave()),
            Form::TryBh => insist(|| lock.try_lock_bh()),
        };
        self.judge(right);
    }

    /// One section of a handler. What it has interrupted does not hold the lock, or the form is no good.
    fn handler(&self) {
        let right = self.lock.lock().section();
        self.judge(right);
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tries until it has the lock; whether the section was right.
fn insist<G: Deref<Target = Guarded>>(mut attempt: impl FnMut() -> Option<G>) -> bool {
    loop {
        if let Some(guard) = attempt() {
            return guard.section();
        }
        spin_hint();
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
    let done = [const { AtomicU64::new(0) }; MAX_CPUS];
    let stop = AtomicU32::new(0);
    let ns = AtomicU64::new(0);
    let (events, ticks, (halts, kicks)) = (events(), ticks(), totals());
    watchdog::set(u64::from(until.ms) + GRACE_MS);
    scene::play(&load, cpus, &|number| {
        if number != 0 {
            apic::start_timer(options.hz);
        }
        let start = Instant::now();
        let mut count = 0;
        loop {
            if count >= own || stop.load(Ordering::Relaxed) != 0 {
                break;
            }
            if number == 0 && start.elapsed_ns() >= u64::from(until.ms) * 1_000_000 {
                stop.store(1, Ordering::Relaxed);
                break;
            }
            load.task();
            count += 1;
            if rival != Rival::Nobody && count % SECTIONS_PER_INTERRUPT == 0 {
                apic::send((number + 1) % cpus, Irq::Low);
            }
        }
        if number == 0 {
            ns.store(start.elapsed_ns(), Ordering::Relaxed);
        }
        done[number].store(count, Ordering::Relaxed);
        // The first CPU's goes on for the watchdog.
        if number != 0 {
            apic::start_timer(0);
        }
    });
    watchdog::set(0);
    let done = || done[..cpus].iter().map(|count| count.load(Ordering::Relaxed));
    let (sections, interrupts) = (done().sum::<u64>(), load.interrupts.load(Ordering::Relaxed));
    let guarded = load.lock.lock();
    let mut violations = load.violations.load(Ordering::Relaxed);
    // What is missing, or too much, in the end.
    for number in [&guarded.one, &guarded.other] {
        violations += number.load(Ordering::Relaxed).abs_diff(sections + interrupts);
    }
    drop(guarded);
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
        Lock::Chosen => run_lock(CHOICE.get().1, form, rival, until, options),
    }
}

/// Every lock in every form; how many of them have failed.
pub(crate) fn forms(options: &Options) -> u32 {
    let until = Until { sections: options.sections, ms: options.ms };
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
    let until = Until { sections: u64::MAX, ms: options.ms };
    let run = |lock| u32::from(run_lock(lock, Form::IrqSave, Rival::Nobody, until, options) != 0);
    (0..options.rounds).flat_map(|_| options.locks()).map(run).sum()
}

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
    let violations = run::<Broken>(
        Form::IrqSave,
        Rival::Hardirqs,
        Until { sections: options.sections, ms: options.ms },
        options,
    );
    check("broken", violations > 0, format_args!("{violations} violations of a lock that does not lock"))
}
