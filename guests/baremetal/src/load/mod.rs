//! Locks under load: sections that check that they are alone, in tasks and in the interrupts of each form.

use crosslock_baremetal::options::{Lock, Options};
use crosslock_baremetal::report::{Events, Line, Run, text};
use crosslock_core::primitive::{AtomicU64, Ordering};
use crosslock_core::{Event, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::{ArchSpinLock, Up, raise_softirq};

use crate::control::totals;
use crate::interrupts::Irq;
use crate::platform::{Kernel, Plain};
use crate::scene::Scene;
use crate::{CHOICE, console, cpu};

mod broken;
mod form;
mod stage;
mod subject;

pub(crate) use broken::broken;

use form::{Form, Rival};
use stage::{Team, Until};
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

/// How much longer than it should a load may take, in milliseconds: owners may be preempted for long.
const GRACE_MS: u64 = 30_000;

/// Two CPUs may take so many times what all of them had.
const PATIENCE: u32 = 10;

/// An interrupt to the next CPU once in so many sections of a task.
const SECTIONS_PER_INTERRUPT: u64 = 1024;

/// Puts a lock under load, and reports it; how many violations there were. All CPUs take it for as long as the options say. What is
/// missing then of the sections that are `wanted` is done by two at a time; without a number it is as many as there is time for.
fn run<L: ArchSpinLock<Kernel<L>> + 'static>(
    form: Form,
    rival: Rival,
    wanted: Option<u64>,
    options: &Options,
) -> u64 {
    let Options { ms, warm_up_ms, .. } = *options;
    let cpus = options.cpus as usize;
    let load = Load::<L>::new(form, rival);
    let (events, ticks, (halts, kicks)) = (events(), ticks(), totals());
    let each = wanted.map_or(u64::MAX, |all| all.div_ceil(u64::from(options.cpus)));
    let all = stage::play(&load, Team::All(cpus), Until { each, ms, warm_up_ms }, options.hz);
    let crowded = all.sections.iter().sum();
    let mut sections: u64 = crowded;
    // A fair lock is handed on a few hundred times a second where more CPUs want it than there are. Each pair has its share.
    for other in 1..cpus {
        let missing = wanted.unwrap_or(0).saturating_sub(sections);
        let each = missing.div_ceil((cpus - other) as u64).div_ceil(2);
        if each > 0 {
            let until = Until { each, ms: ms * PATIENCE, warm_up_ms: 0 };
            sections += stage::play(&load, Team::Pair(other), until, options.hz).sections.iter().sum::<u64>();
        }
    }
    let interrupts = load.interrupts.load(Ordering::Relaxed);
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
        crowded,
        interrupts,
        violations,
        ns: all.ns,
        least: all.sections[..cpus].iter().copied().min().unwrap_or(0),
        most: all.sections[..cpus].iter().copied().max().unwrap_or(0),
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

fn run_lock(lock: Lock, form: Form, rival: Rival, wanted: Option<u64>, options: &Options) -> u64 {
    match lock {
        Lock::Tas => run::<RawTas>(form, rival, wanted, options),
        Lock::Ticket => run::<RawTicket>(form, rival, wanted, options),
        Lock::Mcs => run::<RawMcs>(form, rival, wanted, options),
        Lock::Queued => run::<RawQSpin>(form, rival, wanted, options),
        Lock::Paravirtual => run::<RawPvQSpin>(form, rival, wanted, options),
        Lock::Up => run::<Up>(form, rival, wanted, options),
        Lock::Chosen => run_lock(CHOICE.get().1, form, rival, wanted, options),
    }
}

/// Every lock in every form; how many of them have failed.
pub(crate) fn forms(options: &Options) -> u32 {
    let wanted = Some(options.sections);
    let mut failures = 0;
    for lock in (0..options.rounds).flat_map(|_| options.locks()) {
        for form in Form::ALL {
            failures += u32::from(run_lock(lock, form, form.rival(), wanted, options) != 0);
        }
    }
    failures
}

/// Every lock for a fixed time; how many have failed. Handlers let it alone: where each hand-over waits for a CPU, four handlers a
/// hundred times a second would have the lock all the time, and tasks never.
pub(crate) fn throughput(options: &Options) -> u32 {
    let run = |lock| u32::from(run_lock(lock, Form::IrqSave, Rival::Nobody, None, options) != 0);
    (0..options.rounds).flat_map(|_| options.locks()).map(run).sum()
}
