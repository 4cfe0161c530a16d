//! The reader-writer lock under loom.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p crosslock-kernel --test loom
//! ```
//! Every execution with at most the given number of involuntary switches; the schedule branches during the
//! first [`SPINS`] turns of spin loops.
#![cfg(loom)]

#[path = "../../core/tests/model/mod.rs"]
mod model;
#[path = "../src/qrwlock.rs"]
mod qrwlock;

use core::cell::Cell;
use std::sync::Arc;

use crosslock_core::primitive::model::{Fault, bound_spins, inject};
use crosslock_core::{Corrupted, RawLock, RawQSpin};
use loom::cell::UnsafeCell;
use loom::thread;

use crate::model::{Cpu, Machine, must_be_caught};
use crate::qrwlock::{Queue, RwLockWord};

const SPINS: u32 = 4;

std::thread_local! {
    static READERS_LEAVE_RELAXED: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn readers_leave_relaxed() -> bool {
    READERS_LEAVE_RELAXED.get()
}

struct OnCpu<'a>(&'a RawQSpin, &'a Cpu);

impl Queue for OnCpu<'_> {
    type Error = Corrupted;

    fn acquire(&self) -> Result<(), Corrupted> {
        self.0.acquire(self.1)
    }

    unsafe fn release(&self) -> Result<(), Corrupted> {
        // SAFETY: the caller owns it.
        unsafe { self.0.release(self.1) }
    }

    fn relax(&self) {
        crosslock_core::Context::relax(self.1);
    }
}

#[derive(Default)]
struct Shared {
    word: RwLockWord,
    queue: RawQSpin,
    /// Two cells that a writer makes equal.
    data: [UnsafeCell<u32>; 2],
}

// SAFETY: accessed under the lock under test; that this is enough is what loom checks.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

#[derive(Clone, Copy)]
enum Role {
    Reader,
    /// One that passes by the queue.
    Handler,
    TryReader,
    Writer,
    TryWriter,
}

impl Shared {
    fn visit(&self, cpu: &Cpu, role: Role) {
        let queue = OnCpu(&self.queue, cpu);
        match role {
            Role::Reader => self.word.read(&queue, || false).unwrap(),
            Role::Handler => self.word.read(&queue, || true).unwrap(),
            Role::Writer => self.word.write(&queue).unwrap(),
            Role::TryReader => {
                if !self.word.try_read() {
                    return;
                }
            }
            Role::TryWriter => {
                if !self.word.try_write() {
                    return;
                }
            }
        }
        match role {
            Role::Reader | Role::Handler | Role::TryReader => {
                // SAFETY: the lock is held; loom checks.
                let [a, b] = self.data.each_ref().map(|cell| cell.with(|value| unsafe { *value }));
                assert_eq!(a, b, "a writer was inside");
                // SAFETY: a reader since above.
                unsafe { self.word.read_unlock() };
            }
            Role::Writer | Role::TryWriter => {
                for cell in &self.data {
                    // SAFETY: the lock is held; loom checks.
                    cell.with_mut(|value| unsafe { *value += 1 });
                }
                // SAFETY: the writer since above.
                unsafe { self.word.write_unlock() };
            }
        }
    }
}

fn explore<const N: usize>(switches: Option<usize>, roles: [Role; N]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = switches;
    builder.max_branches = 10_000;
    builder.check(move || {
        bound_spins(SPINS);
        let (shared, machine) = (Arc::new(Shared::default()), Arc::new(Machine::new(N)));
        let others: Vec<_> = (1..N)
            .map(|number| {
                let (shared, cpu) = (Arc::clone(&shared), Cpu::new(&machine, number));
                thread::spawn(move || shared.visit(&cpu, roles[number]))
            })
            .collect();
        shared.visit(&Cpu::new(&machine, 0), roles[0]);
        for other in others {
            other.join().unwrap();
        }
        assert!(
            !shared.word.is_locked() && !shared.word.is_write_locked() && !shared.word.writer_waits(),
            "{:?}",
            shared.word
        );
    });
}

#[test]
fn a_reader_and_a_writer() {
    explore(None, [Role::Reader, Role::Writer]);
}

#[test]
fn two_writers() {
    explore(None, [Role::Writer, Role::Writer]);
}

#[test]
fn two_readers_and_a_writer() {
    explore(Some(3), [Role::Reader, Role::Reader, Role::Writer]);
}

#[test]
fn a_reader_and_two_writers() {
    explore(Some(3), [Role::Reader, Role::Writer, Role::Writer]);
}

#[test]
fn a_handler_passes_by_the_queue() {
    explore(Some(3), [Role::Handler, Role::Reader, Role::Writer]);
    explore(None, [Role::Handler, Role::Writer]);
}

#[test]
fn who_tries_sees_what_was_done_before() {
    explore(None, [Role::TryReader, Role::Writer]);
    explore(None, [Role::TryWriter, Role::Reader]);
    explore(None, [Role::TryWriter, Role::Writer]);
}

#[test]
fn control_a_writer_that_leaves_relaxed_is_caught() {
    const NAME: &str = "control_a_writer_that_leaves_relaxed_is_caught";
    must_be_caught(NAME, "Causality violation", || {
        inject(Fault::ReleaseIsRelaxed);
        explore(Some(3), [Role::Reader, Role::Writer]);
    });
}

#[test]
fn control_a_reader_that_leaves_relaxed_is_caught() {
    const NAME: &str = "control_a_reader_that_leaves_relaxed_is_caught";
    must_be_caught(NAME, "Causality violation", || {
        READERS_LEAVE_RELAXED.set(true);
        explore(Some(3), [Role::Reader, Role::Writer]);
    });
}
