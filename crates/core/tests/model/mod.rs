//! What the model checkers run the locks on: CPUs that sleep on a condition variable when they wait.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod robust;
pub(crate) mod robust_rw;

use std::sync::Arc;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{Context, CpuId, HashEntry, LockKey, LockType, PerCpu, PvOps, RawLock};

#[cfg(loom)]
use loom::cell::UnsafeCell;
#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// A machine of a few CPUs.
pub(crate) struct Machine {
    per_cpu: Vec<PerCpu>,
    beds: Vec<(Mutex<()>, Condvar)>,
    hash: Vec<HashEntry>,
    /// Addresses of the locks that have asked for their key. Not a part of the model.
    keys: std::sync::Mutex<Vec<usize>>,
    /// Turns before a paravirtual waiter sleeps. 0 shows loom more: it takes back no stale read that came
    /// before a turn.
    spin_threshold: u32,
    /// Negative control: goes to sleep without looking at the word again.
    sleeps_blindly: bool,
}

impl Machine {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            per_cpu: (0..cpus).map(|_| PerCpu::new()).collect(),
            beds: (0..cpus).map(|_| (Mutex::new(()), Condvar::new())).collect(),
            hash: (0..(4 * cpus).next_power_of_two()).map(|_| HashEntry::new()).collect(),
            keys: std::sync::Mutex::default(),
            spin_threshold: 1,
            sleeps_blindly: false,
        }
    }

    pub(crate) fn that_sleeps_at_once(cpus: usize) -> Self {
        Self { spin_threshold: 0, ..Self::new(cpus) }
    }

    pub(crate) fn that_sleeps_blindly(cpus: usize) -> Self {
        Self { sleeps_blindly: true, ..Self::that_sleeps_at_once(cpus) }
    }
}

pub(crate) struct Cpu {
    number: usize,
    machine: Arc<Machine>,
}

impl Cpu {
    pub(crate) fn new(machine: &Arc<Machine>, number: usize) -> Self {
        Self { number, machine: Arc::clone(machine) }
    }
}

// SAFETY: each thread of a model has a number of its own.
unsafe impl Context for Cpu {
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(self.number)
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &self.machine.per_cpu
    }
}

impl PvOps for Cpu {
    /// As a futex: the kernel compares and goes to sleep under a lock that the waker takes.
    fn pv_wait(&self, word: &AtomicU32, mask: u32, value: u32) {
        let kicks = self.machine.per_cpu[self.number].kicks();
        let (mutex, condvar) = &self.machine.beds[self.number];
        let seen = kicks.load(Ordering::Acquire);
        if !self.machine.sleeps_blindly && word.load(Ordering::Relaxed) & mask != value {
            return;
        }
        let mut guard = mutex.lock().unwrap();
        while kicks.load(Ordering::Relaxed) == seen {
            guard = condvar.wait(guard).unwrap();
        }
        drop(guard);
    }

    fn pv_kick(&self, cpu: CpuId) {
        self.machine.per_cpu[cpu.index()].kicks().fetch_add(1, Ordering::Release);
        let (mutex, condvar) = &self.machine.beds[cpu.index()];
        drop(mutex.lock().unwrap());
        condvar.notify_one();
    }

    fn pv_hash(&self) -> &[HashEntry] {
        &self.machine.hash
    }

    /// In the order in which the locks are asked for, for addresses differ from run to run.
    fn lock_key(&self, word: &AtomicU32) -> LockKey {
        let address = core::ptr::from_ref(word).addr();
        let mut keys = self.machine.keys.lock().unwrap();
        let index = keys.iter().position(|key| *key == address).unwrap_or_else(|| {
            keys.push(address);
            keys.len() - 1
        });
        LockKey::new(index as u64 + 1).unwrap()
    }

    fn spin_threshold(&self) -> u32 {
        self.machine.spin_threshold
    }
}

/// A counter that only a lock protects: loom reports any two accesses that are not ordered.
#[cfg(loom)]
pub(crate) struct Counter(UnsafeCell<usize>);
/// A counter that only a lock protects: an update is lost where two are inside at once.
#[cfg(shuttle)]
pub(crate) struct Counter(AtomicU32);

#[cfg(loom)]
// SAFETY: accessed under the lock under test; that this holds is what is checked.
unsafe impl Sync for Counter {}

impl Counter {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn add_one(&self) {
        // SAFETY: the caller holds the lock; loom checks that this is enough.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    #[cfg(loom)]
    pub(crate) fn get(&self) -> usize {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }

    #[cfg(shuttle)]
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[cfg(shuttle)]
    pub(crate) fn add_one(&self) {
        let value = self.0.load(Ordering::Relaxed);
        thread::yield_now();
        self.0.store(value + 1, Ordering::Relaxed);
    }

    #[cfg(shuttle)]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }
}

/// A lock and what it guards.
struct Guarded<L>(L, Counter);

impl<L: RawLock<Cpu>> Guarded<L> {
    fn new() -> Self {
        Self(L::default(), Counter::new())
    }

    fn visit(&self, cx: &Cpu) {
        self.0.acquire(cx).unwrap();
        self.leave(cx);
    }

    fn try_visit(&self, cx: &Cpu) {
        while !self.0.try_acquire(cx) {
            cx.relax();
        }
        self.leave(cx);
    }

    fn leave(&self, cx: &Cpu) {
        self.1.add_one();
        // SAFETY: acquired by the caller.
        unsafe { self.0.release(cx) }.unwrap();
    }
}

/// `cpus` CPUs take the lock `rounds` times each; at the end every section has been counted.
pub(crate) fn all_sections_count<L: RawLock<Cpu> + Send + 'static>(
    machine: Machine,
    cpus: usize,
    rounds: usize,
) {
    run(machine, cpus, cpus * rounds, move |cx, [lock, _]: &[Guarded<L>; 2]| {
        (0..rounds).for_each(|_| lock.visit(cx));
    });
}

/// CPU 0 takes the lock by trying, the other waits for it.
pub(crate) fn trying_counts<L: RawLock<Cpu> + Send + 'static>() {
    run(Machine::new(2), 2, 2, |cx, [lock, _]: &[Guarded<L>; 2]| match cx.number {
        0 => lock.try_visit(cx),
        _ => lock.visit(cx),
    });
}

/// Each CPU takes one lock, and then another with the same node: what was written late for the first would
/// disturb the second.
pub(crate) fn a_second_lock_counts<L: RawLock<Cpu> + Send + 'static>(machine: Machine, cpus: usize) {
    run(machine, cpus, 2 * cpus, |cx, [first, second]: &[Guarded<L>; 2]| {
        first.visit(cx);
        second.visit(cx);
    });
}

fn run<L: RawLock<Cpu> + Send + 'static>(
    machine: Machine,
    cpus: usize,
    sections: usize,
    body: impl Fn(&Cpu, &[Guarded<L>; 2]) + Copy + Send + 'static,
) {
    let shared = Arc::new([Guarded::<L>::new(), Guarded::<L>::new()]);
    let machine = Arc::new(machine);
    let others: Vec<_> = (1..cpus)
        .map(|number| {
            let (cx, shared) = (Cpu::new(&machine, number), Arc::clone(&shared));
            thread::spawn(move || body(&cx, &shared))
        })
        .collect();
    body(&Cpu::new(&machine, 0), &shared);
    for other in others {
        other.join().unwrap();
    }
    for Guarded(lock, _) in &*shared {
        lock.acquire(&Cpu::new(&machine, 0)).unwrap();
    }
    assert_eq!(shared.iter().map(|Guarded(_, counter)| counter.get()).sum::<usize>(), sections);
    assert!(machine.hash.iter().all(|entry| entry.lock().is_none()), "an entry is left in the lock hash");
}

/// All changes of the lock word that are possible; none for locks without such a word.
///
/// Tails are `0`, `n` and, where another takes its place, `m`.
pub(crate) fn diagram<L: LockType>() -> &'static [&'static str] {
    match L::NAME {
        "qspinlock" => &QSPINLOCK,
        "pvqspinlock" => &PVQSPINLOCK,
        _ => &[],
    }
}

const QSPINLOCK: [&str; 29] = [
    "0,0,0 -> 0,0,1", // uncontended acquire
    "0,0,1 -> 0,0,0", // release
    "0,0,1 -> 0,1,1", // second contender
    "0,1,1 -> 0,1,0", // release
    "0,1,0 -> 0,0,1", // pending takes over
    "0,0,0 -> 0,1,0", // pending set just after the release
    "0,1,1 -> 0,1,1", // a third finds pending set ...
    "0,1,0 -> 0,1,0",
    "0,0,0 -> n,0,0", // ... and queues, whatever the rest of the word is
    "0,0,1 -> n,0,1",
    "0,1,0 -> n,1,0",
    "0,1,1 -> n,1,1",
    "n,0,0 -> m,0,0",
    "n,0,1 -> m,0,1",
    "n,1,0 -> m,1,0",
    "n,1,1 -> m,1,1",
    "n,0,1 -> n,0,0", // release, or a newcomer takes back
    "n,1,1 -> n,1,0",
    "n,1,0 -> n,0,1", // pending takes over
    "n,0,0 -> 0,0,1", // queue head, alone
    "n,0,0 -> n,0,1", // queue head, others behind; or a newcomer, for a moment
    "n,0,0 -> n,1,0", // pending set too late ...
    "n,0,1 -> n,1,1",
    "n,1,0 -> n,0,0", // ... and taken back
    "n,1,1 -> n,0,1",
    "n,1,0 -> n,1,0", // another finds such a one set
    "n,1,1 -> n,1,1",
    "0,1,0 -> 0,1,1", // a newcomer, for a moment
    "n,1,0 -> n,1,1",
];

/// 3 is SLOW; pending means that the head spins.
const PVQSPINLOCK: [&str; 27] = [
    "0,0,0 -> 0,0,1", // uncontended acquire
    "0,0,1 -> 0,0,0", // release
    "0,0,0 -> n,0,0", // queues, whatever the rest of the word is
    "0,0,1 -> n,0,1",
    "n,0,0 -> m,0,0",
    "n,0,1 -> m,0,1",
    "n,0,3 -> m,0,3",
    "n,1,0 -> m,1,0",
    "n,1,1 -> m,1,1",
    "n,1,3 -> m,1,3",
    "n,0,0 -> n,0,1", // steals: nobody spins at the head
    "n,0,0 -> n,1,0", // head starts to spin: no stealing
    "n,0,1 -> n,1,1",
    "n,0,3 -> n,1,3",
    "n,1,0 -> n,0,1", // head takes the lock
    "n,0,1 -> 0,0,1", // nobody behind: clears the tail
    "n,1,0 -> n,0,0", // head gives up spinning
    "n,1,1 -> n,0,1",
    "n,1,3 -> n,0,3",
    "n,0,1 -> n,0,3", // head, or owner for it, asks to be kicked
    "n,1,1 -> n,1,3",
    "n,0,0 -> n,0,3", // too late, the lock is free: the head has it
    "n,0,3 -> n,0,1",
    "n,0,1 -> n,0,0", // release
    "n,1,1 -> n,1,0",
    "n,0,3 -> n,0,0", // release, and kick
    "n,1,3 -> n,1,0",
];

/// Runs `broken` in a process of its own (a deadlock in a model ends in an abort) and expects loom's `report`.
#[cfg(loom)]
pub(crate) fn must_be_caught(test: &str, report: &str, broken: impl FnOnce()) {
    const CONTROL: &str = "CROSSLOCK_NEGATIVE_CONTROL";
    if std::env::var_os(CONTROL).is_some() {
        return broken();
    }
    let this = std::env::current_exe().unwrap();
    let child = std::process::Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(CONTROL, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned() + &String::from_utf8_lossy(&child.stdout);
    assert!(!child.status.success(), "{test}: the fault was not caught");
    assert!(said.contains(report), "{test}: caught otherwise than by {report:?}:\n{said}");
}
