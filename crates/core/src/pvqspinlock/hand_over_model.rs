//! The hand-over to a waiter that may be asleep, alone: [D] to [G] of `pvqspinlock` with two CPUs, so that loom can
//! afford more involuntary switches than over the whole lock.

use std::sync::Arc;

use super::{RawPvQSpin, Suspending};
use crate::model::{Cpu, Machine, thread};
use crate::own_node::OwnNode;
use crate::per_cpu::{NodeId, node};
use crate::primitive::{Ordering, model::bound_spins};
use crate::qspinlock::{LockWord, Waiting};
use crate::{Context, CpuId, PvOps, RawLock};

/// CPU 1 waits in the queue, alone and not yet its head; CPU 0 owns the lock.
#[test]
fn hand_over_to_a_sleeper() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(6);
    builder.max_branches = 10_000;
    builder.check(|| {
        bound_spins(4);
        let machine = Arc::new(Machine::that_sleeps_at_once(2));
        let node_of = |cpu| CpuId::new(cpu).and_then(|cpu| NodeId::new(cpu, 0)).unwrap();
        let id = node_of(1);
        let lock = Arc::new(RawPvQSpin { word: LockWord::new(id.bits() << 16 | 1) });

        let waiter = {
            let (lock, cx) = (Arc::clone(&lock), Cpu::new(&machine, 1));
            thread::spawn(move || {
                let mine = OwnNode::queued(cx.per_cpu(), id);
                Suspending::wait_for_turn(&cx, &mine, node_of(0)).unwrap();
                let owned = Suspending::wait_for_lock(&lock.word, &cx, &mine).unwrap();
                assert!(lock.word.try_clear_tail(owned));
                drop(mine);
                // SAFETY: acquired by hand above.
                unsafe { lock.release(&cx) }.unwrap();
            })
        };

        let cx = Cpu::new(&machine, 0);
        let next = node(cx.per_cpu(), id).unwrap();
        next.locked.store(1, Ordering::Release);
        Suspending::new_head(&lock.word, &cx, next, id).unwrap();
        // SAFETY: the word says so from the start.
        unsafe { lock.release(&cx) }.unwrap();

        waiter.join().unwrap();
        assert_eq!(lock.word().bits(), 0);
        let left = cx.pv_hash().iter().any(|entry| entry.lock().is_some());
        assert!(!left, "an entry is left in the lock hash");
    });
}
