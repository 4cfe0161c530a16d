//! The locks of a uniprocessor: nothing to wait for, but what is disabled is disabled.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{ConstContext, Context, CpuId, HashEntry, LockKey, PerCpu, PvOps};
use crosslock_kernel::{
    ArchSpinLock, CpuState, NoHooks, Platform, RawSpinLock, RwSpinLock, Spinning, Up, UpUnchecked,
};

/// A machine of one CPU for each test thread.
#[derive(Debug)]
struct Machine<A>(core::marker::PhantomData<fn() -> A>);

struct OneCpu {
    state: CpuState,
    irqs_off: AtomicU32,
}

thread_local! {
    static ONE: &'static OneCpu =
        Box::leak(Box::new(OneCpu { state: CpuState::new(), irqs_off: AtomicU32::new(0) }));
}

static NODES: [PerCpu; 1] = [PerCpu::new()];

impl<A> ConstContext for Machine<A> {
    const CONTEXT: Self = Self(core::marker::PhantomData);
}

// SAFETY: the locks used here have no nodes.
unsafe impl<A> Context for Machine<A> {
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(0)
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &NODES
    }
}

impl<A> PvOps for Machine<A> {
    fn pv_wait(&self, _: &AtomicU32, _: u32, _: u32) {}
    fn pv_kick(&self, _: CpuId) {}
    fn pv_hash(&self) -> &[HashEntry] {
        &[]
    }
    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }
}

// SAFETY: a thread is a machine of its own, and no lock below is used by two of them; there are no interrupts. What
// `UpUnchecked` wants is obeyed where data are changed.
unsafe impl<A: ArchSpinLock<Self> + 'static> Platform for Machine<A> {
    type Arch = A;
    type Spin = Spinning<Self>;
    type Hooks = NoHooks;

    fn this_cpu() -> &'static CpuState {
        &ONE.with(|one| *one).state
    }

    fn irqs_disabled() -> bool {
        ONE.with(|one| one.irqs_off.load(Ordering::Relaxed)) != 0
    }

    fn irq_disable() {
        ONE.with(|one| one.irqs_off.store(1, Ordering::Relaxed));
    }

    unsafe fn irq_enable() {
        ONE.with(|one| one.irqs_off.store(0, Ordering::Relaxed));
    }
}

fn says<R>(act: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).err().expect("it panics");
    panic.downcast_ref::<String>().cloned().expect("it says why")
}

#[test]
fn every_attempt_succeeds_and_is_accounted_for() {
    fn check<A: ArchSpinLock<Machine<A>> + 'static>() {
        type P<A> = Machine<A>;
        let lock = RawSpinLock::<P<A>, u32>::new(0);
        let count = || (P::<A>::preempt_count().bits(), P::<A>::irqs_disabled());
        for _ in 0..100 {
            *lock.try_lock().unwrap() += 1;
            *lock.try_lock_irq().unwrap() += 1;
            *lock.try_lock_irqsave().unwrap() += 1;
            *lock.try_lock_bh().unwrap() += 1;
            let guard = lock.lock_irqsave();
            lock.assert_held();
            assert_eq!((P::<A>::preempt_count().preempt(), P::<A>::irqs_disabled()), (1, true));
            drop(guard);
            assert_eq!(count(), (0, false));
        }
        assert_eq!(*lock.lock(), 400);
    }
    check::<Up>();
    check::<UpUnchecked>();
    assert_eq!(size_of::<Spinning<Machine<UpUnchecked>>>(), 0);
    assert_eq!(size_of::<Spinning<Machine<Up>>>(), 4);
}

/// With and without debug checks: two `&mut` to the same data can never be had.
#[test]
fn recursion_is_found() {
    type P = Machine<Up>;
    let lock = RawSpinLock::<P, u32>::new(0);
    let held = lock.lock();
    assert!(says(|| drop(lock.lock())).contains("recursion"));
    assert!(lock.try_lock().is_none());
    lock.assert_held();
    drop(held);
    assert!(!lock.is_locked());

    let rw = RwSpinLock::<P, u32>::new(0);
    let (one, two) = (rw.try_read().unwrap(), rw.try_read().unwrap());
    assert!(rw.try_write().is_none());
    assert!(says(|| drop(rw.write())).contains("recursion"));
    drop((one, two));
    let write = rw.write();
    assert!(rw.try_read().is_none());
    assert!(says(|| drop(rw.read())).contains("recursion"));
    drop(write);
    assert!(!rw.is_locked());
    assert_eq!(P::preempt_count().bits(), 0);
}

/// The lock that is nothing finds it with debug checks only; without them everybody gets it, as the rule has it that
/// nobody asks twice. (The data here are nothing, too, so that two may have them.)
#[test]
fn recursion_of_the_lock_that_is_nothing() {
    type P = Machine<UpUnchecked>;
    let lock = RawSpinLock::<P, ()>::new(());
    let held = lock.lock();
    if cfg!(feature = "debug-checks") {
        let said = says(|| drop(lock.lock()));
        assert!(said.contains("recursion") && said.matches("uniprocessor.rs").count() >= 3, "{said}");
        drop(held);
        assert_eq!(P::preempt_count().bits(), 0);
    } else {
        assert!(lock.try_lock().is_some());
        drop(held);
    }
}
