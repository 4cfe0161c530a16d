//! Every form on the hosted platform: what it disables, and what happens meanwhile.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_kernel::hosted::{
    Cpu, Hosted, Native, RealTime, Setup, interrupt, nmi_interrupt, on_nmi, open_softirq, request_irq,
    reschedules, set_need_resched,
};
use crosslock_kernel::preempt_count::Count;
use crosslock_kernel::{
    Platform, RawSpinLock, SpinLock, local_bh_disable, local_irq_save, migrate_disable, preempt_disable,
    raise_softirq,
};

type Lock<T> = RawSpinLock<Hosted, T>;

fn count<S: Setup>() -> Count {
    Hosted::<S>::preempt_count()
}

/// (preempt, softirq, irqs-off depth, irqs disabled)
fn disabled<S: Setup>() -> (u32, u32, u32, bool) {
    let count = count::<S>();
    (count.preempt(), count.softirq_disabled(), count.irq_off_depth(), Hosted::<S>::irqs_disabled())
}

const NOTHING: (u32, u32, u32, bool) = (0, 0, 0, false);

#[test]
fn each_form_disables_its_own_and_enables_it_again() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let guard = lock.lock();
    assert_eq!(disabled::<Native>(), (1, 0, 0, false));
    drop(guard);
    assert_eq!(disabled::<Native>(), NOTHING);
    let guard = lock.lock_irq();
    assert_eq!(disabled::<Native>(), (1, 0, 1, true));
    drop(guard);
    assert_eq!(disabled::<Native>(), NOTHING);
    let guard = lock.lock_irqsave();
    assert_eq!(disabled::<Native>(), (1, 0, 1, true));
    drop(guard);
    assert_eq!(disabled::<Native>(), NOTHING);
    let guard = lock.lock_bh();
    assert_eq!(disabled::<Native>(), (1, 1, 0, false));
    drop(guard);
    assert_eq!(disabled::<Native>(), NOTHING);
}

#[test]
fn each_attempt_does_the_same_and_a_failed_one_leaves_nothing() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(0);
    let held = lock.lock();
    let with_one = disabled::<Native>();
    assert!(lock.try_lock().is_none());
    assert!(lock.try_lock_irq().is_none());
    assert!(lock.try_lock_irqsave().is_none());
    assert!(lock.try_lock_bh().is_none());
    assert_eq!(disabled::<Native>(), with_one);
    drop(held);
    assert_eq!(lock.try_lock().map(|_guard| disabled::<Native>()), Some((1, 0, 0, false)));
    assert_eq!(lock.try_lock_irq().map(|_guard| disabled::<Native>()), Some((1, 0, 1, true)));
    assert_eq!(lock.try_lock_irqsave().map(|_guard| disabled::<Native>()), Some((1, 0, 1, true)));
    assert_eq!(lock.try_lock_bh().map(|_guard| disabled::<Native>()), Some((1, 1, 0, false)));
    assert_eq!(disabled::<Native>(), NOTHING);
}

#[test]
fn guards_without_a_lock() {
    let _cpu = Cpu::claim().unwrap();
    let preempt = preempt_disable::<Hosted>();
    let migrate = migrate_disable::<Hosted>();
    let irq = local_irq_save::<Hosted>();
    let bh = local_bh_disable::<Hosted>();
    assert_eq!(disabled::<Native>(), (1, 1, 1, true));
    drop(preempt);
    drop(irq);
    assert_eq!(disabled::<Native>(), (0, 1, 0, false));
    drop(migrate);
    drop(bh);
    assert_eq!(disabled::<Native>(), NOTHING);
}

/// The flags stay right in whatever order guards end: 4 guards, all 24 orders.
#[test]
fn guards_may_end_in_any_order() {
    let _cpu = Cpu::claim().unwrap();
    static CAME: AtomicU32 = AtomicU32::new(0);
    let _action = request_irq(1, || {
        CAME.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    let cpu = crosslock_core::Context::cpu(&<Hosted as crosslock_core::ConstContext>::CONTEXT).unwrap();
    let locks: [Lock<()>; 3] = [const { Lock::new(()) }; 3];
    let mut orders = 0;
    for order in (0..256u32).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]) {
        if (0..4).any(|wanted| !order.contains(&wanted)) {
            continue;
        }
        orders += 1;
        let before = CAME.load(Ordering::Relaxed);
        let mut saves = [Some(locks[0].lock_irqsave()), Some(locks[1].lock_irqsave())];
        let mut bh = Some(locks[2].lock_bh());
        let mut bare = Some(local_irq_save::<Hosted>());
        interrupt(cpu, 1).unwrap();
        for which in order {
            let keeps_irqs_off = saves.iter().flatten().count() + usize::from(bare.is_some());
            assert_eq!(CAME.load(Ordering::Relaxed) - before, u32::from(keeps_irqs_off == 0), "{order:?}");
            match which {
                0 | 1 => saves[which as usize] = None,
                2 => drop(bh.take()),
                _ => bare = None,
            }
        }
        assert_eq!(CAME.load(Ordering::Relaxed) - before, 1, "{order:?}");
        assert_eq!(disabled::<Native>(), NOTHING, "{order:?}");
    }
    assert_eq!(orders, 24);
}

#[test]
fn softirqs_wait_for_bottom_halves_and_for_interrupts() {
    let _cpu = Cpu::claim().unwrap();
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let _softirq = open_softirq(3, || {
        assert!(!Hosted::<Native>::irqs_disabled());
        SEEN.store(count::<Native>().bits(), Ordering::Relaxed);
        RUNS.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    let runs = || RUNS.load(Ordering::Relaxed);

    raise_softirq::<Hosted>(3);
    assert_eq!(runs(), 1, "at once");
    let seen = Count::from_bits(SEEN.load(Ordering::Relaxed));
    assert!(seen.in_serving_softirq() && seen.in_softirq() && !seen.in_task() && !seen.in_hardirq());

    let lock = Lock::new(());
    let guard = lock.lock_bh();
    raise_softirq::<Hosted>(3);
    assert_eq!(runs(), 1);
    drop(guard);
    assert_eq!(runs(), 2);

    let guard = lock.lock_irqsave();
    raise_softirq::<Hosted>(3);
    assert_eq!(runs(), 2);
    drop(guard);
    assert_eq!(runs(), 3);

    // The bh guard ends first, inside the other: not before that is over, too.
    let bh = lock.lock_bh();
    let irq = local_irq_save::<Hosted>();
    raise_softirq::<Hosted>(3);
    drop(bh);
    assert_eq!(runs(), 3);
    drop(irq);
    assert_eq!(runs(), 4);
}

#[test]
fn contexts_nest_task_softirq_hardirq_nmi() {
    let _cpu = Cpu::claim().unwrap();
    static SEEN: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    fn note(level: usize) {
        SEEN[level].store(count::<Native>().bits(), Ordering::Relaxed);
    }
    fn me() -> crosslock_core::CpuId {
        crosslock_core::Context::cpu(&<Hosted as crosslock_core::ConstContext>::CONTEXT).unwrap()
    }
    let _softirq = open_softirq(4, || {
        note(0);
        interrupt(me(), 4).unwrap();
    })
    .unwrap();
    let _hardirq = request_irq(4, || {
        assert!(Hosted::<Native>::irqs_disabled());
        note(1);
        nmi_interrupt(me()).unwrap();
    })
    .unwrap();
    let _nmi = on_nmi(|| {
        assert!(Hosted::<Native>::irqs_disabled());
        note(2);
    })
    .unwrap();
    assert!(count::<Native>().in_task());
    raise_softirq::<Hosted>(4);
    let [softirq, hardirq, nmi] = SEEN.each_ref().map(|seen| Count::from_bits(seen.load(Ordering::Relaxed)));
    assert!(softirq.in_serving_softirq() && !softirq.in_hardirq(), "{softirq:?}");
    assert!(hardirq.in_serving_softirq() && hardirq.hardirq() == 1 && !hardirq.in_nmi(), "{hardirq:?}");
    assert!(nmi.in_serving_softirq() && nmi.hardirq() == 2 && nmi.in_nmi(), "{nmi:?}");
    assert_eq!(disabled::<Native>(), NOTHING);
}

#[test]
fn the_scheduler_has_its_turn_when_preemption_is_enabled() {
    let cpu = Cpu::claim().unwrap();
    let turns = || reschedules(cpu.id()).unwrap();
    let (lock, before) = (Lock::new(()), turns());
    let outer = preempt_disable::<Hosted>();
    let guard = lock.lock_irqsave();
    set_need_resched(cpu.id()).unwrap();
    drop(guard);
    assert_eq!(turns(), before, "preemption is still disabled");
    drop(outer);
    assert_eq!(turns(), before + 1);
    drop(lock.lock());
    assert_eq!(turns(), before + 1, "asked for once");
}

#[test]
fn the_preemptible_form_disables_bottom_halves_only() {
    let _cpu = Cpu::claim().unwrap();
    let lock: SpinLock<Hosted<RealTime>, u32> = SpinLock::<Hosted<RealTime>, _>::new(0);
    drop(lock.lock());
    assert_eq!(
        {
            let _guard = lock.lock();
            disabled::<RealTime>()
        },
        NOTHING
    );
    assert_eq!(
        {
            let _guard = lock.lock_irq();
            disabled::<RealTime>()
        },
        NOTHING
    );
    assert_eq!(
        {
            let _guard = lock.lock_irqsave();
            disabled::<RealTime>()
        },
        NOTHING
    );
    assert_eq!(
        {
            let _guard = lock.lock_bh();
            disabled::<RealTime>()
        },
        (0, 1, 0, false)
    );
    assert_eq!(disabled::<RealTime>(), NOTHING);
    let raw: RawSpinLock<Hosted<RealTime>, u32> = RawSpinLock::new(0);
    assert_eq!(
        {
            let _guard = raw.lock_irqsave();
            disabled::<RealTime>()
        },
        (1, 0, 1, true),
        "the raw one as ever"
    );
}

#[test]
fn the_last_user_gets_the_lock() {
    let _cpu = Cpu::claim().unwrap();
    let (lock, users) = (Lock::new(7), AtomicU32::new(2));
    assert!(lock.dec_and_lock(&users).is_none());
    assert!(!lock.is_locked());
    assert_eq!(lock.dec_and_lock_irqsave(&users).as_deref(), Some(&7));
    assert_eq!(users.load(Ordering::Relaxed), 0);
    let below =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.dec_and_lock(&users).is_some()));
    assert!(below.is_err(), "0 was counted down");
    assert!(!lock.is_locked());
    assert_eq!(disabled::<Native>(), NOTHING, "although it panicked");
}

#[test]
fn what_a_lock_says_of_itself() {
    let _cpu = Cpu::claim().unwrap();
    let lock = Lock::new(());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.assert_held())).is_err());
    let guard = lock.lock_nested(1);
    lock.assert_held();
    assert!(!crosslock_kernel::Guard::needs_break(&guard));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            drop(lock.lock());
        });
        while !crosslock_kernel::Guard::needs_break(&guard) {
            std::thread::yield_now();
        }
        guard.unlock();
        waiter.join().unwrap();
    });
    assert!(!lock.is_locked() && !lock.is_contended());
}

#[test]
fn a_cpu_left_with_something_disabled_is_given_to_nobody() {
    let left = std::thread::spawn(|| {
        let cpu = Cpu::claim().unwrap();
        core::mem::forget(preempt_disable::<Hosted>());
        cpu.id().index()
    })
    .join()
    .unwrap();
    let barrier = std::sync::Barrier::new(16);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let cpu = Cpu::claim().unwrap();
                    barrier.wait();
                    cpu.id().index()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(!all.contains(&left), "{left} in {all:?}");
}

#[test]
fn a_thread_that_is_no_cpu_is_told_so() {
    let lock = Lock::new(());
    let panic = std::thread::scope(|scope| scope.spawn(|| drop(lock.lock())).join()).unwrap_err();
    let said =
        panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
    assert!(said.unwrap().contains("no CPU"));
}
