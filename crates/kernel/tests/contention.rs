//! Whether somebody waits, as each algorithm tells it.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use core::marker::PhantomData;
use std::time::{Duration, Instant};

use crosslock_core::{RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock_kernel::hosted::{Cpu, Hosted, NotPreemptible, Setup};
use crosslock_kernel::{ArchSpinLock, ExcludesItself, Guard, NoHooks, RawSpinLock, RwSpinLock};

struct With<A>(PhantomData<fn() -> A>);

impl<A: ArchSpinLock<Hosted<Self>> + ExcludesItself + 'static> Setup for With<A> {
    type Arch = A;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;
}

/// Whether `lock` says within `limit` that somebody waits, while somebody does.
fn tells_of_a_waiter<A>(limit: Duration) -> bool
where
    A: ArchSpinLock<Hosted<With<A>>> + ExcludesItself + Send + 'static,
{
    let _cpu = Cpu::claim().unwrap();
    let lock = RawSpinLock::<Hosted<With<A>>, u32>::new(0);
    let guard = lock.lock();
    assert!(lock.is_locked() && !Guard::needs_break(&guard), "{}: nobody waits yet", A::NAME);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            *lock.lock() += 1;
        });
        let start = Instant::now();
        while !Guard::needs_break(&guard) && start.elapsed() < limit {
            std::thread::yield_now();
        }
        let told = Guard::needs_break(&guard);
        drop(guard);
        told
    });
    assert!(!lock.is_locked() && !lock.is_contended(), "{}: everybody has left", A::NAME);
    assert_eq!(lock.into_inner(), 1);
    told
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn locks_with_a_queue_tell() {
    assert!(tells_of_a_waiter::<RawTicket>(LONG));
    assert!(tells_of_a_waiter::<RawQSpin>(LONG));
    assert!(tells_of_a_waiter::<RawMcs>(LONG));
    assert!(tells_of_a_waiter::<RawPvQSpin>(LONG));
}

#[test]
fn a_test_and_set_lock_cannot() {
    assert!(!tells_of_a_waiter::<RawTas>(Duration::from_millis(50)));
}

/// A writer that waits is seen, and keeps new readers out; readers who wait for a writer are seen, too.
#[test]
fn readers_and_writers_take_turns() {
    type P = Hosted<With<RawQSpin>>;
    let _cpu = Cpu::claim().unwrap();
    let lock = RwSpinLock::<P, u32>::new(0);
    let until_contended = || {
        let start = Instant::now();
        while !lock.is_contended() {
            assert!(start.elapsed() < LONG, "nobody waits");
            std::thread::yield_now();
        }
    };
    let reader = lock.read();
    assert!(!lock.is_contended());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = Cpu::claim().unwrap();
            *lock.write() += 1;
        });
        until_contended();
        assert!(lock.try_read().is_none(), "the writer's turn has come");
        assert!(lock.is_locked() && !lock.is_write_locked());
        drop(reader);
    });
    let mut writer = lock.write();
    assert!(lock.is_write_locked() && lock.try_read().is_none() && lock.try_write().is_none());
    *writer += 1;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _cpu = Cpu::claim().unwrap();
                assert_eq!(*lock.read(), 2);
            });
        }
        until_contended();
        drop(writer);
    });
    assert!(!lock.is_locked() && !lock.is_contended());
}
