//! The state diagram walked step by step with real threads, and nested waits through all nodes of a CPU.
#![cfg(not(any(loom, shuttle)))]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crosslock_core::primitive::AtomicU32;
use crosslock_core::{
    Context, CpuId, Event, HashEntry, LockKey, PerCpu, PvOps, QWord, RawLock, RawMcs, RawPvQSpin, RawQSpin,
};

const CPUS: usize = 4;

struct Machine {
    per_cpu: [PerCpu; CPUS],
    hash: [HashEntry; 4 * CPUS],
}

impl Machine {
    fn new() -> Arc<Self> {
        let per_cpu = core::array::from_fn(|_| PerCpu::new());
        Arc::new(Self { per_cpu, hash: core::array::from_fn(|_| HashEntry::new()) })
    }
}

/// A CPU that lets an "interrupt" run at each turn of a spin loop.
struct Cpu<'a> {
    number: usize,
    machine: &'a Machine,
    interrupt: &'a dyn Fn(&Cpu<'_>),
    events: RefCell<Vec<Event>>,
}

impl<'a> Cpu<'a> {
    fn new(machine: &'a Machine, number: usize, interrupt: &'a dyn Fn(&Cpu<'_>)) -> Self {
        Self { number, machine, interrupt, events: RefCell::default() }
    }

    fn counted(&self, event: Event) -> usize {
        self.events.borrow().iter().filter(|&&seen| seen == event).count()
    }
}

fn quiet(_: &Cpu<'_>) {
    std::thread::yield_now();
}

// SAFETY: each test gives each thread a number of its own.
unsafe impl Context for Cpu<'_> {
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(self.number)
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &self.machine.per_cpu
    }

    fn relax(&self) {
        (self.interrupt)(self);
    }

    fn count(&self, event: Event, amount: u64) {
        if amount > 0 {
            self.events.borrow_mut().push(event);
        }
    }
}

impl PvOps for Cpu<'_> {
    /// Returns early, which it may.
    fn pv_wait(&self, _word: &AtomicU32, _mask: u32, _value: u32) {
        std::thread::yield_now();
    }

    fn pv_kick(&self, _cpu: CpuId) {}

    fn pv_hash(&self) -> &[HashEntry] {
        &self.machine.hash
    }

    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        LockKey::of_address(word)
    }

    fn spin_threshold(&self) -> u32 {
        16
    }
}

fn wait_for(word: impl Fn() -> QWord, expected: &str) {
    let start = Instant::now();
    while word().to_string() != expected {
        assert!(start.elapsed() < Duration::from_secs(20), "{} never became {expected}", word());
        std::thread::yield_now();
    }
}

/// A thread that acquires at once, tells so, and releases when told to.
fn visitor(machine: &Arc<Machine>, lock: &Arc<RawQSpin>, number: usize) -> (Receiver<()>, Sender<()>) {
    let ((inside, is_inside), (leave, may_leave)) = (channel(), channel());
    let (machine, lock) = (Arc::clone(machine), Arc::clone(lock));
    std::thread::spawn(move || {
        let cx = Cpu::new(&machine, number, &quiet);
        lock.acquire(&cx).unwrap();
        inside.send(()).unwrap();
        may_leave.recv().unwrap();
        // SAFETY: acquired above.
        unsafe { lock.release(&cx) }.unwrap();
    });
    (is_inside, leave)
}

#[test]
fn qspinlock_walks_its_diagram() {
    let (machine, lock) = (Machine::new(), Arc::new(RawQSpin::new()));
    let word = || lock.word();
    wait_for(word, "(no tail, pending 0, locked 0)");

    let me = Cpu::new(&machine, 0, &quiet);
    lock.acquire(&me).unwrap();
    wait_for(word, "(no tail, pending 0, locked 1)");
    assert!(!lock.try_acquire(&me));

    let (second_in, second_out) = visitor(&machine, &lock, 1);
    wait_for(word, "(no tail, pending 1, locked 1)");
    let (third_in, third_out) = visitor(&machine, &lock, 2);
    wait_for(word, "(cpu 2 node 0, pending 1, locked 1)");
    let (fourth_in, fourth_out) = visitor(&machine, &lock, 3);
    wait_for(word, "(cpu 3 node 0, pending 1, locked 1)");

    // SAFETY: acquired above.
    unsafe { lock.release(&me) }.unwrap();
    second_in.recv().unwrap();
    wait_for(word, "(cpu 3 node 0, pending 0, locked 1)");
    second_out.send(()).unwrap();
    third_in.recv().unwrap();
    wait_for(word, "(cpu 3 node 0, pending 0, locked 1)");
    third_out.send(()).unwrap();
    fourth_in.recv().unwrap();
    wait_for(word, "(no tail, pending 0, locked 1)");
    fourth_out.send(()).unwrap();
    wait_for(word, "(no tail, pending 0, locked 0)");
}

/// Task, softirq, hardirq and NMI wait on one CPU, each interrupting the one before; then one more.
fn nest<L: for<'a> RawLock<Cpu<'a>>>() {
    const LEVELS: usize = 5;
    let machine = Machine::new();
    let locks: [L; LEVELS] = core::array::from_fn(|_| L::default());
    let other = Cpu::new(&machine, 1, &quiet);
    for lock in &locks {
        lock.acquire(&other).unwrap();
    }
    let level = Cell::new(0);
    let interrupt = |cx: &Cpu<'_>| {
        level.set(level.get() + 1);
        match level.get() {
            deeper @ 1..LEVELS => {
                locks[deeper].acquire(cx).unwrap();
                // SAFETY: acquired above.
                unsafe { locks[deeper].release(cx) }.unwrap();
            }
            LEVELS => {
                for lock in &locks {
                    // SAFETY: acquired above, on behalf of the other CPU.
                    unsafe { lock.release(&other) }.unwrap();
                }
            }
            _ => {}
        }
    };
    let cx = Cpu::new(&machine, 0, &interrupt);
    locks[0].acquire(&cx).unwrap();
    assert!(locks.iter().skip(1).all(|lock| !lock.is_locked()));
    assert_eq!(machine.per_cpu[0].depth(), 0);
    let nested = [Event::LockUseNode2, Event::LockUseNode3, Event::LockUseNode4, Event::LockNoNode];
    for event in nested {
        assert_eq!(cx.counted(event), 1, "{} in {}", event.name(), L::NAME);
    }
}

#[test]
fn waits_nest_through_four_nodes_and_past_them() {
    nest::<RawPvQSpin>();
    nest::<RawMcs>();
}

#[test]
fn a_release_of_a_free_lock_is_an_error() {
    let machine = Machine::new();
    let (lock, cx) = (RawPvQSpin::new(), Cpu::new(&machine, 0, &quiet));
    // SAFETY: not owned, which the lock is to notice; nobody else uses it.
    let error = unsafe { lock.release(&cx) }.unwrap_err();
    assert!(error.to_string().contains("not held"), "{error}");
}
