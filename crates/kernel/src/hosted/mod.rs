//! A kernel in user space: threads are CPUs, signals are interrupts. For tests, of this crate and of drivers.
//!
//! | in a kernel | here |
//! |---|---|
//! | a CPU | a thread that has a [`Cpu`] |
//! | an interrupt | signal `SIGRTMIN + 8` to that thread; 32 lines, see [`request_irq`] and [`interrupt`] |
//! | interrupts disabled | a flag of the CPU: the signal is noted, and handled when they are enabled |
//! | a non-maskable interrupt | signal `SIGRTMIN + 9`, which the flag does not keep away; see [`nmi_interrupt`] |
//! | a softirq | a function that runs at the end of an interrupt, or when bottom halves are enabled |
//! | a sleeping lock | a futex with priority inheritance, [`PiFutex`] |
//! | the scheduler | `sched_yield`, when [`set_need_resched`] was called |
//!
//! Handlers are signal handlers, and like interrupt handlers they may come at any instruction: they may use this
//! crate's spin locks and atomics, but neither allocate nor use anything that does or that waits.
//!
//! ```
//! use crosslock_kernel::RawSpinLock;
//! use crosslock_kernel::hosted::{Cpu, Hosted, interrupt, request_irq};
//!
//! static EVENTS: RawSpinLock<Hosted, u32> = RawSpinLock::new(0);
//!
//! let cpu = Cpu::claim()?;
//! let action = request_irq(3, || *EVENTS.lock() += 1)?;
//! {
//!     let events = EVENTS.lock_irqsave();
//!     interrupt(cpu.id(), 3)?; // to ourselves, kept away until the guard is gone
//!     assert_eq!(*events, 0);
//! }
//! assert_eq!(*EVENTS.lock_irqsave(), 1);
//! # drop(action);
//! # Ok::<(), crosslock_kernel::hosted::Error>(())
//! ```

mod cpu;
mod error;
mod interrupt;
mod pi_futex;

use core::fmt;
use core::marker::PhantomData;

use crosslock_core::primitive::AtomicU32;
use crosslock_core::{
    ConstContext, Context, CpuId, Event, HashEntry, LockKey, NoHooks, PerCpu, PvOps, RawQSpin,
};
use rustix::thread::{futex, sched_yield};
use rustix::time::{ClockId, clock_gettime};

use crate::arch::{ArchSpinLock, ExcludesItself};
use crate::cpu_state::CpuState;
use crate::hooks::LockHooks;
use crate::kind::Kind;
use crate::platform::Platform;
use crate::report::{Report, Severity};
use crate::sleeping::Sleeping;
use crate::spinning::Spinning;

pub use cpu::{Cpu, MAX_CPUS, event_count, reschedules, set_need_resched};
pub use error::Error;
pub use interrupt::{Action, LINES, interrupt, nmi_interrupt, on_nmi, open_softirq, request_irq};
pub use pi_futex::PiFutex;

/// What [`Hosted`] leaves open.
pub trait Setup: Sized + 'static {
    /// The algorithm of raw spin locks. [`Up`](crate::Up) is for [`Cpu::claim_boot`]'s thread alone: another that
    /// comes panics.
    type Arch: ArchSpinLock<Hosted<Self>> + ExcludesItself;

    /// [`NotPreemptible`] or [`Preemptible`].
    type Preemption: Preemption;

    /// Who is told of lock operations.
    type Hooks: LockHooks;

    /// See [`Platform::MAX_HOLD_NS`].
    const MAX_HOLD_NS: u64 = 0;

    /// See [`Platform::report`]. By default the report is printed; after a fatal one the thread panics, or, in a
    /// handler, from which a panic has no way out, the process aborts.
    fn report(report: &Report) {
        print(report);
        if report.problem.severity() == Severity::Fatal && !report.count.in_task() {
            std::process::abort();
        }
    }
}

/// Prints without a lock and without memory: it may be called by a handler, which has interrupted others that print.
fn print(report: &Report) {
    let mut text = arrayvec::ArrayString::<2048>::new();
    // What does not fit is cut off.
    let _ = fmt::Write::write_fmt(&mut text, format_args!("{report}\n"));
    // SAFETY: the buffer lives, and is as long. Where standard error is closed there is nobody to tell.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// What a `SpinLock` is.
pub trait Preemption: 'static {
    /// Its kind on platform `P`.
    type Spin<P: Platform>: Kind<P>;
}

/// A `SpinLock` is a `RawSpinLock`.
#[derive(Debug)]
pub struct NotPreemptible;

impl Preemption for NotPreemptible {
    type Spin<P: Platform> = Spinning<P>;
}

/// A `SpinLock` sleeps, as on a real-time kernel.
#[derive(Debug)]
pub struct Preemptible;

impl Preemption for Preemptible {
    type Spin<P: Platform> = Sleeping<P, PiFutex>;
}

/// Queued spin locks, not preemptible, no hooks.
#[derive(Debug)]
pub struct Native;

impl Setup for Native {
    type Arch = RawQSpin;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;
}

/// Queued spin locks; a `SpinLock` sleeps.
#[derive(Debug)]
pub struct RealTime;

impl Setup for RealTime {
    type Arch = RawQSpin;
    type Preemption = Preemptible;
    type Hooks = NoHooks;
}

/// One CPU.
#[derive(Debug)]
pub struct Uniprocessor;

impl Setup for Uniprocessor {
    type Arch = crate::Up;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;
}

/// The platform.
pub struct Hosted<S = Native>(PhantomData<fn() -> S>);

impl<S> fmt::Debug for Hosted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hosted")
    }
}

impl<S> ConstContext for Hosted<S> {
    const CONTEXT: Self = Self(PhantomData);
}

// SAFETY: a number belongs to one thread from `Cpu::claim` to the end of the `Cpu`; the nodes are written by locks
// only.
unsafe impl<S> Context for Hosted<S> {
    fn cpu(&self) -> Option<CpuId> {
        cpu::current()
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &cpu::NODES
    }

    /// There may be fewer processors than CPUs: who waits for long lets others run.
    fn relax(&self) {
        if cpu::spins_for_long() {
            sched_yield();
        } else {
            crosslock_core::primitive::spin_hint();
        }
    }

    fn count(&self, event: Event, amount: u64) {
        cpu::count(event, amount);
    }
}

/// Longest sleep of a waiter: no kick is known to get lost; should one, it costs this much and no more.
const MAX_SLEEP: futex::Timespec = futex::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl<S> PvOps for Hosted<S> {
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32) {
        use crosslock_core::primitive::Ordering;
        let Some(nodes) = cpu::current().and_then(|cpu| cpu::NODES.get(cpu.index())) else {
            return;
        };
        // Acquire: pairs with the Release of the kick; who reads that reads the changed word.
        let seen = nodes.kicks().load(Ordering::Acquire);
        if word.load(Ordering::Relaxed) & mask == value {
            // Whatever ends the sleep, the caller looks again.
            let _ = futex::wait(nodes.kicks().as_core(), futex::Flags::PRIVATE, seen, Some(&MAX_SLEEP));
        }
    }

    fn pv_kick(&self, cpu: CpuId) {
        use crosslock_core::primitive::Ordering;
        if let Some(nodes) = cpu::NODES.get(cpu.index()) {
            nodes.kicks().fetch_add(1, Ordering::Release);
            // Fails only on memory that nobody can sleep on.
            let _ = futex::wake(nodes.kicks().as_core(), futex::Flags::PRIVATE, 1);
        }
    }

    fn pv_hash(&self) -> &[HashEntry] {
        &cpu::HASH
    }

    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }

    fn spin_threshold(&self) -> u32 {
        1 << 9
    }

    fn clock_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs())
    }
}

// SAFETY: a thread is one CPU until its `Cpu` is gone, which stays in use while anything is disabled; signals are
// kept away by the flag; a uniprocessor's locks are used by CPU 0 only, see `this_cpu`.
unsafe impl<S: Setup> Platform for Hosted<S> {
    type Arch = S::Arch;
    type Spin = <S::Preemption as Preemption>::Spin<Self>;
    type Hooks = S::Hooks;
    const MAX_HOLD_NS: u64 = S::MAX_HOLD_NS;

    /// # Panics
    /// Where the thread has no [`Cpu`], or is not the one of a uniprocessor.
    #[inline]
    fn this_cpu() -> &'static CpuState {
        let (number, state) = cpu::this_state();
        assert!(S::Arch::SMP || number == 0, "a uniprocessor has no CPU {number}");
        state
    }

    fn irqs_disabled() -> bool {
        interrupt::are_disabled()
    }

    fn irq_disable() {
        interrupt::disable();
    }

    unsafe fn irq_enable() {
        interrupt::enable();
    }

    /// A thread is its CPU: nothing to do.
    fn migrate_disable() {}

    unsafe fn migrate_enable() {}

    fn need_resched() -> bool {
        cpu::need_resched()
    }

    fn preempt_schedule() {
        cpu::clear_need_resched();
        sched_yield();
    }

    fn softirq(vector: u32) {
        interrupt::run_softirq(vector);
    }

    fn current() -> u64 {
        u64::from(cpu::thread_id())
    }

    fn report(report: &Report) {
        S::report(report);
    }
}
