//! What happens at the end of a guard, and in which order: unlock, interrupts, softirqs, preemption, scheduler.

use core::cell::RefCell;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{ConstContext, Context, CpuId, HashEntry, LockKey, PerCpu, PvOps, RawQSpin};
use crosslock_kernel::{CpuState, LockHooks, Operation, Platform, RawSpinLock, Spinning, raise_softirq};

/// One CPU that writes down what is asked of it.
#[derive(Debug)]
struct Logging;

static NODES: [PerCpu; 1] = [PerCpu::new()];
static CPU: CpuState = CpuState::new();
static IRQS_OFF: AtomicU32 = AtomicU32::new(0);
static RESCHED: AtomicU32 = AtomicU32::new(0);
static LOCK: RawSpinLock<Logging, u32> = RawSpinLock::new(0);

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes `what`, and in which state it comes.
fn log(what: &str) {
    let locked = if LOCK.is_locked() { "locked" } else { "free" };
    let irqs = if Logging::irqs_disabled() { "off" } else { "on" };
    let count = Logging::preempt_count();
    let softirq = if count.in_serving_softirq() { ", serving" } else { "" };
    LOG.with_borrow_mut(|log| {
        log.push(format!("{what}: {locked}, irqs {irqs}, preempt {}{softirq}", count.preempt()));
    });
}

impl ConstContext for Logging {
    const CONTEXT: Self = Self;
}

// SAFETY: one CPU: the test below is the only thread that uses it.
unsafe impl Context for Logging {
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(0)
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &NODES
    }
}

impl PvOps for Logging {
    fn pv_wait(&self, _: &AtomicU32, _: u32, _: u32) {}
    fn pv_kick(&self, _: CpuId) {}
    fn pv_hash(&self) -> &[HashEntry] {
        &[]
    }
    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }
}

struct Told;

impl LockHooks for Told {
    fn acquired(_: &Operation) {
        log("acquired");
    }
    fn release(_: &Operation) {
        log("release");
    }
}

// SAFETY: one CPU, no interrupts.
unsafe impl Platform for Logging {
    type Arch = RawQSpin;
    type Spin = Spinning<Self>;
    type Hooks = Told;

    fn this_cpu() -> &'static CpuState {
        &CPU
    }

    fn irqs_disabled() -> bool {
        IRQS_OFF.load(Ordering::Relaxed) != 0
    }

    fn irq_disable() {
        IRQS_OFF.store(1, Ordering::Relaxed);
    }

    unsafe fn irq_enable() {
        IRQS_OFF.store(0, Ordering::Relaxed);
        log("irq_enable");
    }

    fn need_resched() -> bool {
        RESCHED.load(Ordering::Relaxed) != 0
    }

    fn preempt_schedule() {
        RESCHED.store(0, Ordering::Relaxed);
        log("schedule");
    }

    fn softirq(_: u32) {
        log("softirq");
    }
}

#[track_caller]
fn logged(expected: &[&str]) {
    assert_eq!(LOG.take(), expected);
}

/// One test: the CPU is one.
#[test]
fn a_guard_ends_in_order() {
    let guard = LOCK.lock();
    RESCHED.store(1, Ordering::Relaxed);
    drop(guard);
    logged(&[
        "acquired: locked, irqs on, preempt 1",
        "release: locked, irqs on, preempt 1",
        "schedule: free, irqs on, preempt 0",
    ]);

    let guard = LOCK.lock_irqsave();
    RESCHED.store(1, Ordering::Relaxed);
    drop(guard);
    logged(&[
        "acquired: locked, irqs off, preempt 1",
        "release: locked, irqs off, preempt 1",
        "irq_enable: free, irqs on, preempt 1",
        "schedule: free, irqs on, preempt 0",
    ]);

    let guard = LOCK.lock_bh();
    raise_softirq::<Logging>(5);
    RESCHED.store(1, Ordering::Relaxed);
    LOG.take();
    drop(guard);
    logged(&[
        "release: locked, irqs on, preempt 1",
        // The softirq runs with interrupts enabled, the lock free, and not preempted.
        "irq_enable: free, irqs on, preempt 1, serving",
        "softirq: free, irqs on, preempt 1, serving",
        "irq_enable: free, irqs on, preempt 1",
        "schedule: free, irqs on, preempt 0",
    ]);

    // Where interrupts were off, they stay so, and the scheduler waits.
    Logging::irq_disable();
    RESCHED.store(1, Ordering::Relaxed);
    drop(LOCK.lock_irqsave());
    logged(&["acquired: locked, irqs off, preempt 1", "release: locked, irqs off, preempt 1"]);
    // SAFETY: nothing is held.
    unsafe { Logging::irq_enable() };
    assert_eq!(RESCHED.swap(0, Ordering::Relaxed), 1);
    assert_eq!(Logging::preempt_count().bits(), 0);
}
