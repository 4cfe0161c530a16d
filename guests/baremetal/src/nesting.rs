//! Waits on top of each other on one CPU, through all its queue nodes, and past them.
//!
//! ```text
//!   CPU 0 owns the locks     CPU 2, then CPU 1, wait for each, in the context that the last wait is interrupted by
//!
//!     locks[0]  <-- task
//!     locks[1]  <--   softirq, raised by an interrupt
//!     locks[2]  <--     hardirq of low priority, with interrupts on
//!     locks[3]  <--       hardirq of high priority
//!     locks[4]  <--         NMI
//! ```
//! CPU 2 is there so that CPU 1 is never the second contender, whom the native queued lock lets wait without a node. Then CPU 0
//! lets the locks go, the innermost first, and the waits end in that order.

use crosslock_baremetal::options::{Lock, Options};
use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use crosslock_core::{Event, LockType, NODES_PER_CPU, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::{ArchSpinLock, Platform, RawSpinLock, raise_softirq};

use crate::arch::interrupts;
use crate::control::check_of;
use crate::interrupts::Irq;
use crate::platform::{self, Kernel, Plain};
use crate::scene::{self, Scene};
use crate::{CHOICE, clock, cpu, smp, watchdog};

/// Waits that nest, from the outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Task,
    Softirq,
    Low,
    High,
    Nmi,
}

/// As Linux counts them: one for each node.
const FOUR: [Context; 4] = [Context::Task, Context::Softirq, Context::Low, Context::Nmi];

/// One more than there are nodes.
const FIVE: [Context; 5] = [Context::Task, Context::Softirq, Context::Low, Context::High, Context::Nmi];

/// In the order in which they come to a lock.
const WAITERS: [usize; 2] = [2, 1];

/// How long a round may take, in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// For how long a waiter at a lock that does not tell must have been there before it counts as waiting, in microseconds.
const SETTLED_US: u64 = 200;

const NEVER: u32 = u32::MAX;

/// A waiter's state, as it tells it.
#[derive(Debug)]
struct Waiter {
    /// The wait that it is at, or [`NEVER`].
    at: AtomicU32,
    /// The wait that was over last; they end from the innermost to the outermost.
    over: AtomicU32,
}

struct Nesting<'a, L: ArchSpinLock<Kernel<L>> + 'static> {
    contexts: &'a [Context],
    locks: [RawSpinLock<Kernel<L>, u32>; FIVE.len()],
    /// The context that is next.
    step: AtomicU32,
    waiters: [Waiter; WAITERS.len()],
    out_of_order: AtomicU32,
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Nesting<'_, L> {
    /// By a waiter, in the context of that number.
    fn wait(&self, context: Context) {
        let Some(level) = self.contexts.iter().position(|&other| other == context) else { return };
        let Some(waiter) = self.waiters.get(cpu::number().wrapping_sub(1)) else { return };
        #[expect(clippy::cast_possible_truncation, reason = "a handful")]
        let number = level as u32;
        waiter.at.store(number, Ordering::Release);
        let mut guard = self.locks[level].lock();
        *guard += 1;
        drop(guard);
        let expected = if level + 1 == self.contexts.len() { NEVER } else { number + 1 };
        if waiter.over.swap(number, Ordering::AcqRel) != expected {
            self.out_of_order.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether `context` is the one that is next.
    fn is_next(&self, context: Context) -> bool {
        self.contexts.get(self.step.load(Ordering::Acquire) as usize) == Some(&context)
    }

    /// By CPU 0, which owns the locks: has both waiters wait in the context `level`, with node `level` of CPU 1 if `by_node`.
    fn descend(&self, level: usize, by_node: bool) {
        #[expect(clippy::cast_possible_truncation, reason = "a handful")]
        let number = level as u32;
        self.step.store(number, Ordering::Release);
        for cpu in WAITERS {
            let before = no_node(cpu);
            match self.contexts[level] {
                // It is there by itself.
                Context::Task => {}
                Context::Softirq | Context::Low => interrupts::send(cpu, Irq::Low),
                Context::High => interrupts::send(cpu, Irq::High),
                Context::Nmi => interrupts::send_nmi(cpu),
            }
            // Without a node, it is past the point where that is counted.
            let has_none = || no_node(cpu) > before;
            self.await_waiter(cpu, level, has_none);
            if cpu == 1 && by_node {
                while platform::depth(cpu) as usize <= level && !has_none() {
                    spin_hint();
                }
            }
        }
    }

    /// By CPU 0: until `cpu` waits in the context `level`, as far as that can be told.
    fn await_waiter(&self, cpu: usize, level: usize, has_no_node: impl Fn() -> bool) {
        while self.waiters[cpu - 1].at.load(Ordering::Acquire) as usize != level {
            spin_hint();
        }
        if L::NAME == <RawTas as LockType>::NAME {
            // Such a lock does not show who waits.
            clock::wait_us(SETTLED_US);
        } else {
            while !self.locks[level].is_contended() && !has_no_node() {
                spin_hint();
            }
        }
    }

    /// Up and down again; whether all locks were taken as often as they should be.
    fn round(&self, by_node: bool) -> bool {
        for waiter in &self.waiters {
            waiter.at.store(NEVER, Ordering::Relaxed);
            waiter.over.store(NEVER, Ordering::Relaxed);
        }
        let started = AtomicU32::new(0);
        scene::play(self, WAITERS.len() + 1, &|number| {
            if number != 0 {
                // CPU 2 comes first, and CPU 1 when that one waits.
                while (started.load(Ordering::Acquire) as usize) < number.abs_diff(WAITERS.len() + 1) {
                    spin_hint();
                }
                self.wait(Context::Task);
                return;
            }
            let mut guards: [_; FIVE.len()] = core::array::from_fn(|level| Some(self.locks[level].lock()));
            started.store(1, Ordering::Release);
            self.await_waiter(WAITERS[0], 0, || false);
            started.store(2, Ordering::Release);
            for level in 0..self.contexts.len() {
                self.descend(level, by_node);
            }
            for (level, guard) in guards.iter_mut().enumerate().rev() {
                drop(guard.take());
                #[expect(clippy::cast_possible_truncation, reason = "a handful")]
                while level < self.contexts.len()
                    && self.waiters.iter().any(|waiter| waiter.over.load(Ordering::Acquire) != level as u32)
                {
                    spin_hint();
                }
            }
        });
        let mut taken = self.locks.iter().map(|lock| core::mem::take(&mut *lock.lock()));
        (0..FIVE.len()).all(|level| taken.next() == Some(if level < self.contexts.len() { 2 } else { 0 }))
    }
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Scene for Nesting<'_, L> {
    fn hardirq(&self, irq: Irq) {
        match irq {
            Irq::Low if self.is_next(Context::Softirq) => raise_softirq::<Plain>(0),
            Irq::Low if self.is_next(Context::Low) => {
                // SAFETY: this handler holds no lock, and what it has interrupted had interrupts on; only those of a
                // higher priority come.
                unsafe { Plain::irq_enable() };
                self.wait(Context::Low);
                Plain::irq_disable();
            }
            Irq::High => self.wait(Context::High),
            _ => {}
        }
    }

    fn softirq(&self, _vector: u32) {
        self.wait(Context::Softirq);
    }

    fn nmi(&self) {
        self.wait(Context::Nmi);
    }
}

/// How often a wait on `cpu` has found no node.
fn no_node(cpu: usize) -> u64 {
    event(cpu, Event::LockNoNode)
}

fn event(cpu: usize, event: Event) -> u64 {
    cpu::all()[cpu].events[event.index()].load(Ordering::Relaxed)
}

fn nest<L: ArchSpinLock<Kernel<L>> + 'static>(contexts: &[Context], by_node: bool, rounds: u32) -> u32 {
    const EVENTS: [Event; 4] =
        [Event::LockUseNode2, Event::LockUseNode3, Event::LockUseNode4, Event::LockNoNode];
    let nesting = Nesting::<L> {
        contexts,
        locks: core::array::from_fn(|_| RawSpinLock::new(0)),
        step: AtomicU32::new(0),
        waiters: core::array::from_fn(|_| Waiter { at: AtomicU32::new(NEVER), over: AtomicU32::new(NEVER) }),
        out_of_order: AtomicU32::new(0),
    };
    let before = EVENTS.map(|which| event(1, which));
    let complete = (0..rounds).all(|_| {
        watchdog::set(PATIENCE_MS);
        nesting.step.store(0, Ordering::Release);
        nesting.round(by_node)
    });
    watchdog::set(0);
    let seen: [u64; EVENTS.len()] = core::array::from_fn(|n| event(1, EVENTS[n]) - before[n]);
    // Every node of CPU 1 in every round, and none where there is none left.
    let each = u64::from(rounds);
    let past = if contexts.len() > NODES_PER_CPU { each } else { 0 };
    let expected = if by_node { [each, each, each, past] } else { [0; EVENTS.len()] };
    let in_order = nesting.out_of_order.load(Ordering::Relaxed) == 0;
    let [two, three, four, none] = seen;
    check_of(
        "nesting",
        L::NAME,
        complete && in_order && seen == expected,
        format_args!(
            "{rounds} times {} waits on one CPU: second node {two}, third {three}, fourth {four}, no node {none}",
            contexts.len(),
        ),
    )
}

/// Both nestings with every lock; how many have failed.
pub(crate) fn run(options: &Options) -> u32 {
    if (options.cpus as usize) <= WAITERS.len() {
        return check_of("nesting", "", false, format_args!("needs {} CPUs", WAITERS.len() + 1));
    }
    // The waiters' own timers would only make them slower; CPU 0 has the watchdog.
    smp::run(options.cpus as usize, &|number| {
        if number != 0 {
            interrupts::start_timer(0);
        }
    });
    let mut failures = 0;
    for lock in options.locks().map(|lock| if lock == Lock::Chosen { CHOICE.get().1 } else { lock }) {
        for contexts in [&FOUR[..], &FIVE[..]] {
            failures += match lock {
                Lock::Tas => nest::<RawTas>(contexts, false, options.rounds),
                Lock::Ticket => nest::<RawTicket>(contexts, false, options.rounds),
                Lock::Mcs => nest::<RawMcs>(contexts, true, options.rounds),
                Lock::Queued => nest::<RawQSpin>(contexts, true, options.rounds),
                // With one CPU nobody waits.
                Lock::Up => 0,
                Lock::Paravirtual | Lock::Chosen => nest::<RawPvQSpin>(contexts, true, options.rounds),
            };
        }
    }
    failures
}
