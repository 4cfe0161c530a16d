//! This kernel as the locks see it.

use core::fmt;
use core::marker::PhantomData;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{ConstContext, Context, CpuId, Event, HashEntry, LockKey, PerCpu, PvOps, RawTas};
use crosslock_kernel::{ArchSpinLock, CpuState, NoHooks, Platform, Report, Spinning};

use crate::arch::hypervisor::{self, Hypervisor};
use crate::arch::{interrupts, irq};
use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::Irq;
use crate::once::Once;
use crate::{control, scene};

/// How a CPU that waits for an interrupt is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// By hypercall, its interrupts on or off.
    Hypercall,
    /// By an interrupt; on some architectures only where those are on.
    Ipi,
    /// Not at all: waiters spin.
    Never,
}

/// What the locks want to know of the platform; does not change after boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) hypervisor: Hypervisor,
    pub(crate) wake: Wake,
    pub(crate) spin_threshold: u32,
}

pub(crate) static SETTINGS: Once<Settings> = Once::new();

/// So many kicks are lost, on purpose.
pub(crate) static KICKS_TO_LOSE: AtomicU64 = AtomicU64::new(0);

static PER_CPU: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

/// A power of two, four for each CPU.
static HASH: [HashEntry; 4 * MAX_CPUS] = [const { HashEntry::new() }; 4 * MAX_CPUS];

/// The running CPU, in a kernel whose spin locks are `L`.
pub(crate) struct Kernel<L>(PhantomData<fn() -> L>);

/// The same, where it does not matter which lock.
pub(crate) type Plain = Kernel<RawTas>;

impl<L> fmt::Debug for Kernel<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl<L> ConstContext for Kernel<L> {
    const CONTEXT: Self = Self(PhantomData);
}

// SAFETY: each CPU has a state of its own, and there is one task on each, which never moves. The interrupt flag is the
// CPU's; the stubs' handlers run inside `hardirq` and `nmi`.
unsafe impl<L: ArchSpinLock<Self> + 'static> Platform for Kernel<L> {
    type Arch = L;
    type Spin = Spinning<Self>;
    type Hooks = NoHooks;

    #[inline]
    fn this_cpu() -> &'static CpuState {
        &cpu::this().state
    }

    #[inline]
    fn irqs_disabled() -> bool {
        !irq::are_enabled()
    }

    #[inline]
    fn irq_disable() {
        irq::disable();
    }

    #[inline]
    unsafe fn irq_enable() {
        irq::enable();
    }

    fn softirq(vector: u32) {
        scene::now(|scene| scene.softirq(vector));
    }

    fn report(report: &Report) {
        control::reported(report);
    }
}

// SAFETY: each CPU gives its own number, and nothing moves from CPU to CPU here; the nodes are static.
unsafe impl<L> Context for Kernel<L> {
    #[inline]
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(cpu::number())
    }

    #[inline]
    fn per_cpu(&self) -> &[PerCpu] {
        &PER_CPU
    }

    #[inline]
    fn count(&self, event: Event, amount: u64) {
        cpu::add(&cpu::this().events[event.index()], amount);
    }
}

impl<L> PvOps for Kernel<L> {
    /// HLT, WFI. With interrupts on, the look at the word and the wait are one to interrupts: they are off from before the look
    /// until the wait has begun, see [`irq::enable_and_wait`]; so a kick that is an interrupt ends it. A kick that is a
    /// hypercall is remembered for the next HLT, so it needs no such care, and works with interrupts off, too; and so, on
    /// some architectures, does an interrupt.
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32) {
        // Nothing wakes a CPU in an NMI; and a kick that its interrupted task waits for must not be used up.
        if cpu::this().state.preempt_count().get().in_nmi() {
            return;
        }
        let wake = SETTINGS.get().wake;
        let were_enabled = irq::are_enabled();
        let wakes_here = match wake {
            Wake::Hypercall => true,
            Wake::Ipi => were_enabled || irq::ENDS_WAIT_WHILE_DISABLED,
            Wake::Never => false,
        };
        if !wakes_here {
            return;
        }
        let cpu = cpu::this();
        irq::disable();
        // Relaxed: the kick comes after the change, and a wait is no memory access; see above for what it may miss.
        if word.load(Ordering::Relaxed) & mask == value {
            cpu.halted.store(1, Ordering::Relaxed);
            cpu::add(&cpu.halts, 1);
            if were_enabled {
                irq::enable_and_wait();
            } else {
                irq::wait();
            }
            cpu.halted.store(0, Ordering::Relaxed);
        }
        if were_enabled {
            irq::enable();
        }
    }

    fn pv_kick(&self, cpu: CpuId) {
        let settings = SETTINGS.get();
        cpu::add(&cpu::this().kicks, 1);
        if KICKS_TO_LOSE.load(Ordering::Relaxed) > 0 {
            KICKS_TO_LOSE.fetch_add(u64::MAX, Ordering::Relaxed);
            return;
        }
        match settings.wake {
            Wake::Hypercall => {
                assert!(
                    settings.hypervisor.kick(cpu.index()),
                    "the hypervisor offers KVM_HC_KICK_CPU, and refuses it"
                );
            }
            Wake::Ipi => interrupts::send(cpu.index(), Irq::Kick),
            Wake::Never => {}
        }
    }

    fn pv_hash(&self) -> &[HashEntry] {
        &HASH
    }

    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }

    fn is_running(&self, cpu: CpuId) -> bool {
        !hypervisor::is_preempted(cpu.index())
    }

    fn spin_threshold(&self) -> u32 {
        SETTINGS.get().spin_threshold
    }
}

/// The nodes of `cpu` that are queued now.
pub(crate) fn depth(cpu: usize) -> u32 {
    PER_CPU[cpu].depth()
}
