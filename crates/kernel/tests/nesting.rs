//! Waits that nest: each context that interrupts a waiter waits, too. Four have a queue node each, the fifth has none.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use std::time::{Duration, Instant};

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{ConstContext, Context, CpuId, Event};
use crosslock_kernel::hosted::{
    Cpu, Hosted, Native, event_count, interrupt, nmi_interrupt, on_nmi, open_softirq, request_irq,
};
use crosslock_kernel::preempt_count::Count;
use crosslock_kernel::{Platform, RawSpinLock, raise_softirq};

const LEVELS: usize = 5;

static LOCKS: [RawSpinLock<Hosted, u32>; LEVELS] = [const { RawSpinLock::new(0) }; LEVELS];
static SEEN: [AtomicU32; LEVELS] = [const { AtomicU32::new(0) }; LEVELS];

/// Waits for the lock of this level; notes in which context.
fn wait(level: usize) {
    *LOCKS[level].lock() += 1;
    SEEN[level].store(Hosted::<Native>::preempt_count().bits(), Ordering::Relaxed);
}

fn depth(cpu: CpuId) -> u32 {
    let context = <Hosted as ConstContext>::CONTEXT;
    context.per_cpu()[cpu.index()].depth()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} has not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A CPU waits for the first lock; `interrupts` then makes it wait for one more, and so on. All are held meanwhile, with
/// one more waiter each, so that who comes next needs a node. Gives the contexts in which it waited.
fn nest<const N: usize>(interrupts: [fn(CpuId); N]) -> Vec<Count> {
    let _holder = Cpu::claim().unwrap();
    let mut held: Vec<_> = LOCKS[..=N].iter().map(|lock| lock.lock()).collect();
    let (id, without_node) = (AtomicU32::new(0), event_count(Event::LockNoNode));
    std::thread::scope(|scope| {
        for lock in &LOCKS[..=N] {
            scope.spawn(move || {
                let _cpu = Cpu::claim().unwrap();
                *lock.lock() += 1;
            });
            until("the waiter on the pending bit", || lock.is_contended());
        }
        let victim = scope.spawn(|| {
            let cpu = Cpu::claim().unwrap();
            id.store(u32::try_from(cpu.id().index()).unwrap() + 1, Ordering::Relaxed);
            wait(0);
            assert_eq!(Hosted::<Native>::preempt_count().bits(), 0);
        });
        until("the victim", || id.load(Ordering::Relaxed) != 0);
        let cpu = CpuId::new(id.load(Ordering::Relaxed) as usize - 1).unwrap();
        for (level, interrupt) in interrupts.into_iter().enumerate() {
            until("a nested wait", || depth(cpu) as usize == level + 1);
            interrupt(cpu);
        }
        match N {
            3 => until("the last wait", || depth(cpu) == 4),
            _ => until("a wait without a node", || event_count(Event::LockNoNode) > without_node),
        }
        // From the innermost outwards, or nobody could go on.
        while held.pop().is_some() {}
        victim.join().unwrap();
    });
    SEEN[..=N].iter().map(|seen| Count::from_bits(seen.load(Ordering::Relaxed))).collect()
}

/// One after the other: both use the same locks and lines.
#[test]
fn four_waits_nest_with_nodes_and_a_fifth_without() {
    four_contexts_use_four_nodes();
    a_fifth_wait_has_no_node();
    assert!(LOCKS.iter().all(|lock| !lock.is_locked()));
}

fn four_contexts_use_four_nodes() {
    let _softirq = open_softirq(0, || wait(1)).unwrap();
    let _raise = request_irq(0, raise_softirq_0).unwrap();
    let _hardirq = request_irq(1, || wait(2)).unwrap();
    let _nmi = on_nmi(|| wait(3)).unwrap();
    let before = [Event::LockUseNode2, Event::LockUseNode3, Event::LockUseNode4].map(event_count);
    let [task, softirq, hardirq, nmi] = nest([
        |cpu| interrupt(cpu, 0).unwrap(),
        |cpu| interrupt(cpu, 1).unwrap(),
        |cpu| nmi_interrupt(cpu).unwrap(),
    ])[..] else {
        panic!("four levels");
    };
    assert!(task.in_task());
    assert!(softirq.in_serving_softirq() && !softirq.in_hardirq());
    assert!(hardirq.in_serving_softirq() && hardirq.in_hardirq() && !hardirq.in_nmi());
    assert!(nmi.in_nmi());
    let after = [Event::LockUseNode2, Event::LockUseNode3, Event::LockUseNode4].map(event_count);
    assert!(before.iter().zip(after).all(|(before, after)| after > *before), "{before:?} {after:?}");
}

fn raise_softirq_0() {
    raise_softirq::<Hosted>(0);
}

/// Handlers that let others interrupt them, as old kernels had them.
fn a_fifth_wait_has_no_node() {
    fn wait_with_interrupts<const LEVEL: usize>() {
        // SAFETY: this handler holds nothing that another takes.
        unsafe { Hosted::<Native>::irq_enable() };
        wait(LEVEL);
        Hosted::<Native>::irq_disable();
    }
    let _first = request_irq(0, wait_with_interrupts::<1>).unwrap();
    let _second = request_irq(1, wait_with_interrupts::<2>).unwrap();
    let _third = request_irq(2, wait_with_interrupts::<3>).unwrap();
    let _nmi = on_nmi(|| wait(4)).unwrap();
    let before = event_count(Event::LockNoNode);
    let contexts = nest([
        |cpu| interrupt(cpu, 0).unwrap(),
        |cpu| interrupt(cpu, 1).unwrap(),
        |cpu| interrupt(cpu, 2).unwrap(),
        |cpu| nmi_interrupt(cpu).unwrap(),
    ]);
    let levels: Vec<_> = contexts.iter().map(|count| count.hardirq()).collect();
    assert_eq!(levels, [0, 1, 2, 3, 4], "the last is the NMI");
    assert!(event_count(Event::LockNoNode) > before);
}
