//! Functions whose machine code `tests/disassembly.rs` looks at: lock and unlock, for each kind of platform.

use core::panic::Location;

use crosslock_core::primitive::AtomicU32;
use crosslock_core::{
    ConstContext, Context, CpuId, HashEntry, Hooks, LockKey, PerCpu, PvOps, RawLock, RawQSpin, RawTas,
};
use crosslock_kernel::preempt_count::PREEMPT_OFFSET;
use crosslock_kernel::{CpuState, NoHooks, Platform, RawSpinLock, RwSpinLock, Spinning, Up, UpUnchecked};

static NODES: [PerCpu; 1] = [PerCpu::new()];
static CPU: CpuState = CpuState::new();
static IRQS_OFF: AtomicU32 = AtomicU32::new(0);

/// Who writes down where it was called.
#[derive(Debug)]
struct Trace;

static LAST: AtomicU32 = AtomicU32::new(0);

impl Hooks for Trace {
    fn acquired(&self, _: usize, at: &'static Location<'static>) {
        LAST.store(at.line(), crosslock_core::primitive::Ordering::Relaxed);
    }
}

impl ConstContext for Trace {
    const CONTEXT: Self = Self;
}

macro_rules! platform {
    ($name:ident, $arch:ty, $hooks:ty) => {
        #[derive(Debug)]
        struct $name;

        impl ConstContext for $name {
            const CONTEXT: Self = Self;
        }

        // SAFETY: one CPU: the program has one thread.
        unsafe impl Context for $name {
            fn cpu(&self) -> Option<CpuId> {
                CpuId::new(0)
            }

            fn per_cpu(&self) -> &[PerCpu] {
                &NODES
            }
        }

        impl PvOps for $name {
            fn pv_wait(&self, _: &AtomicU32, _: u32, _: u32) {}
            fn pv_kick(&self, _: CpuId) {}
            fn pv_hash(&self) -> &[HashEntry] {
                &[]
            }
            fn lock_key(&self, word: &AtomicU32) -> LockKey {
                LockKey::of_address(word)
            }
        }

        // SAFETY: one CPU, without interrupts.
        unsafe impl Platform for $name {
            type Arch = $arch;
            type Spin = Spinning<Self>;
            type Hooks = $hooks;

            #[inline]
            fn this_cpu() -> &'static CpuState {
                &CPU
            }

            #[inline]
            fn irqs_disabled() -> bool {
                IRQS_OFF.load(crosslock_core::primitive::Ordering::Relaxed) != 0
            }

            #[inline]
            fn irq_disable() {
                IRQS_OFF.store(1, crosslock_core::primitive::Ordering::Relaxed);
            }

            #[inline]
            unsafe fn irq_enable() {
                IRQS_OFF.store(0, crosslock_core::primitive::Ordering::Relaxed);
            }
        }
    };
}

platform!(Smp, RawQSpin, NoHooks);
platform!(Tas, RawTas, NoHooks);
platform!(TracedTas, RawTas, Trace);
platform!(Uni, Up, NoHooks);
platform!(UniUnchecked, UpUnchecked, NoHooks);

macro_rules! emitted {
    ($($name:ident: $lock:ty, $form:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(lock: &$lock) {
                core::hint::black_box(&*lock.$form());
            }
        )*

        fn call_all() {
            $($name(&<$lock>::new(0));)*
        }
    };
}

emitted! {
    smp_plain: RawSpinLock<Smp, u32>, lock;
    smp_irqsave: RawSpinLock<Smp, u32>, lock_irqsave;
    smp_bh: RawSpinLock<Smp, u32>, lock_bh;
    up_plain: RawSpinLock<Uni, u32>, lock;
    up_irq: RawSpinLock<Uni, u32>, lock_irq;
    up_irqsave: RawSpinLock<Uni, u32>, lock_irqsave;
    up_bh: RawSpinLock<Uni, u32>, lock_bh;
    up_read: RwSpinLock<Uni, u32>, read;
    up_write: RwSpinLock<Uni, u32>, write;
    up_unchecked_plain: RawSpinLock<UniUnchecked, u32>, lock;
    up_unchecked_irqsave: RawSpinLock<UniUnchecked, u32>, lock_irqsave;
    tas_plain: RawSpinLock<Tas, u32>, lock;
    tas_traced: RawSpinLock<TracedTas, u32>, lock;
}

/// What `tas_plain` should come to.
#[repr(C)]
struct ByHand(RawTas, u32);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tas_by_hand(lock: &ByHand) {
    Tas::preempt_add(PREEMPT_OFFSET);
    let taken = lock.0.acquire(&Tas);
    core::hint::black_box(&lock.1);
    // SAFETY: acquired above; it cannot fail.
    let given = unsafe { lock.0.release(&Tas) };
    // SAFETY: added above.
    let left = unsafe { Tas::preempt_sub(PREEMPT_OFFSET) };
    if left.bits() == 0 && Tas::need_resched() && !Tas::irqs_disabled() {
        Tas::preempt_schedule();
    }
    let _ = (taken, given);
}

fn main() {
    call_all();
    tas_by_hand(&ByHand(RawTas::new(), 0));
    assert_eq!(Smp::preempt_count().bits(), 0);
    assert_ne!(LAST.load(crosslock_core::primitive::Ordering::Relaxed), 0);
}
