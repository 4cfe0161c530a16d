//! What a kernel supplies.

use crosslock_core::{ConstContext, PvOps};

use crate::arch::ArchSpinLock;
use crate::cpu_state::CpuState;
use crate::hooks::LockHooks;
use crate::kind::Kind;
use crate::preempt_count::Count;
use crate::report::{Report, Severity};

/// A kernel, as its locks see it: a type without data, all of whose functions speak of the running CPU.
///
/// [`Context`](crosslock_core::Context) says which CPU that is and where the queue nodes are, and [`PvOps`] how to wait
/// for a hypervisor; a kernel that does not choose the paravirtual lock can leave the latter's functions
/// empty.
///
/// ```
/// # use crosslock_core::{ConstContext, Context, CpuId, HashEntry, LockKey, PerCpu, PvOps, RawQSpin};
/// # use crosslock_core::primitive::AtomicU32;
/// use crosslock_kernel::{CpuState, NoHooks, Platform, RawSpinLock, Spinning};
///
/// #[derive(Debug)]
/// struct Bare; // one CPU, no interrupts: the least that can be
/// # static NODES: [PerCpu; 1] = [PerCpu::new()];
/// static CPU: CpuState = CpuState::new();
/// # impl ConstContext for Bare { const CONTEXT: Self = Self; }
/// # // SAFETY: one CPU.
/// # unsafe impl Context for Bare {
/// #     fn cpu(&self) -> Option<CpuId> { CpuId::new(0) }
/// #     fn per_cpu(&self) -> &[PerCpu] { &NODES }
/// # }
/// # impl PvOps for Bare {
/// #     fn pv_wait(&self, _: &AtomicU32, _: u32, _: u32) {}
/// #     fn pv_kick(&self, _: CpuId) {}
/// #     fn pv_hash(&self) -> &[HashEntry] { &[] }
/// #     fn lock_key(&self, word: &AtomicU32) -> LockKey { LockKey::of_address(word) }
/// # }
///
/// // SAFETY: one CPU, never interrupted.
/// unsafe impl Platform for Bare {
///     type Arch = RawQSpin;
///     type Spin = Spinning<Self>;
///     type Hooks = NoHooks;
///     fn this_cpu() -> &'static CpuState { &CPU }
///     fn irqs_disabled() -> bool { true }
///     fn irq_disable() {}
///     unsafe fn irq_enable() {}
/// }
///
/// static JOBS: RawSpinLock<Bare, u32> = RawSpinLock::new(0);
/// *JOBS.lock_irqsave() += 1;
/// ```
///
/// # Safety
/// - [`Platform::this_cpu`] gives each CPU a state of its own, the same as long as preemption or interrupts are
///   disabled; nobody else writes it, save the kernel's own context switch.
/// - Code with a [`preempt_count`](Platform::preempt_count) other than 0 keeps its CPU.
/// - [`Platform::irq_disable`] keeps interrupts away from this CPU until [`Platform::irq_enable`].
/// - Handlers run inside [`hardirq`](crate::hardirq), [`nmi`](crate::nmi).
/// - One that chooses [`UpUnchecked`](crate::UpUnchecked) obeys the rule that is written there.
pub unsafe trait Platform: PvOps + ConstContext + Sized + 'static {
    /// The algorithm of raw spin locks: [`RawQSpin`](crosslock_core::RawQSpin) or another of the family; on a
    /// uniprocessor [`Up`](crate::Up).
    type Arch: ArchSpinLock<Self>;

    /// What a [`SpinLock`](crate::SpinLock) is here: [`Spinning`](crate::Spinning), or
    /// [`Sleeping`](crate::Sleeping) as on a real-time kernel.
    type Spin: Kind<Self>;

    /// Who is told of every operation; [`NoHooks`](crate::NoHooks) for nobody.
    type Hooks: LockHooks;

    /// The longest that a raw lock may be held, in nanoseconds of [`PvOps::clock_ns`], before the debug checks report
    /// it; 0: as long as one likes.
    const MAX_HOLD_NS: u64 = 0;

    /// The running CPU's state.
    fn this_cpu() -> &'static CpuState;

    /// Whether interrupts are disabled on this CPU.
    fn irqs_disabled() -> bool;

    /// Keeps interrupts from this CPU.
    fn irq_disable();

    /// Lets interrupts come again, those first that came meanwhile.
    ///
    /// # Safety
    /// No lock that a handler takes is held, and nobody further up relies on interrupts being disabled.
    unsafe fn irq_enable();

    /// Disables interrupts; whether they were enabled before.
    #[inline]
    fn irq_save() -> bool {
        let were_on = !Self::irqs_disabled();
        Self::irq_disable();
        were_on
    }

    /// Adds to this CPU's `preempt_count`.
    ///
    /// A kernel that moves preempted code to other CPUs overrides this and [`Platform::preempt_sub`] by one instruction
    /// on per-CPU memory, or keeps the state with the task: between finding the word and writing it, the code
    /// could move.
    #[inline]
    fn preempt_add(offset: u32) {
        Self::this_cpu().count.add(offset);
    }

    /// Subtracts from it; gives the value after.
    ///
    /// # Safety
    /// Takes back one [`Platform::preempt_add`].
    #[inline]
    unsafe fn preempt_sub(offset: u32) -> Count {
        Self::this_cpu().count.subtract(offset)
    }

    /// This CPU's `preempt_count`.
    #[inline]
    fn preempt_count() -> Count {
        Self::this_cpu().count.get()
    }

    /// Keeps the running code on its CPU, though it may be preempted, and sleep. Where the kernel has nothing of the
    /// kind, preemption is disabled.
    #[inline]
    fn migrate_disable() {
        Self::preempt_add(crate::preempt_count::PREEMPT_OFFSET);
    }

    /// Takes that back.
    ///
    /// # Safety
    /// Takes back one [`Platform::migrate_disable`].
    #[inline]
    unsafe fn migrate_enable() {
        // SAFETY: the caller's.
        unsafe { crate::local::preempt_enable::<Self>() };
    }

    /// Whether another task should run as soon as preemption is enabled.
    #[inline]
    fn need_resched() -> bool {
        false
    }

    /// Lets the scheduler run: preemption has just been enabled, [`Platform::need_resched`], and interrupts are on.
    #[inline]
    fn preempt_schedule() {}

    /// Runs softirq `vector` (0 to 31), with interrupts enabled. It was raised by
    /// [`raise_softirq`](crate::raise_softirq).
    #[inline]
    fn softirq(vector: u32) {
        let _ = vector;
    }

    /// Names the running task, for the debug checks; not 0.
    #[inline]
    fn current() -> u64 {
        Self::CONTEXT.cpu().map_or(u64::MAX, |cpu| cpu.index() as u64 + 1)
    }

    /// Takes the report of a check that failed. After a [`Severity::Fatal`] one the lock cannot go on: where this
    /// returns, the caller panics.
    #[cold]
    fn report(report: &Report) {
        if report.problem.severity() == Severity::Fatal {
            panic!("{report}");
        }
    }
}
