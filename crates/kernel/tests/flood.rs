//! Interrupts that come faster than they are handled: handlers follow each other, and do not pile up on the stack.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use std::time::{Duration, Instant};

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, spin_hint};
use crosslock_kernel::hosted::{Cpu, Hosted, interrupt, open_softirq, request_irq};
use crosslock_kernel::raise_softirq;

/// Two handlers and what a signal saves, some kilobytes each, with room for an unoptimized build.
const MOST_STACK: u64 = 64 << 10;

/// How many interrupts are a flood, and for how long they come at least.
const ENOUGH: u64 = 1000;
const MOMENT: Duration = Duration::from_secs(1);

static LOWEST: AtomicU64 = AtomicU64::new(u64::MAX);
static HANDLED: AtomicU64 = AtomicU64::new(0);
static SERVED: AtomicU64 = AtomicU64::new(0);

fn stack_pointer() -> u64 {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr() as u64
}

/// By one CPU. Should a handler come between the look and the store, its depth is lost this once, out of thousands.
fn note_stack() {
    let here = stack_pointer();
    if here < LOWEST.load(Ordering::Relaxed) {
        LOWEST.store(here, Ordering::Relaxed);
    }
}

fn handle() {
    note_stack();
    if HANDLED.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
        raise_softirq::<Hosted>(0);
    }
}

fn serve() {
    note_stack();
    SERVED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn handlers_do_not_pile_up() {
    let cpu = Cpu::claim().unwrap();
    let _action = request_irq(0, handle).unwrap();
    let _softirq = open_softirq(0, serve).unwrap();
    let is_over = AtomicU32::new(0);
    let (id, highest) = (cpu.id(), stack_pointer());
    std::thread::scope(|scope| {
        let (is_over, sender) = (&is_over, || {
            while is_over.load(Ordering::Relaxed) == 0 {
                interrupt(id, 0).unwrap();
            }
        });
        scope.spawn(sender);
        scope.spawn(sender);
        let start = Instant::now();
        let is_flooded =
            || HANDLED.load(Ordering::Relaxed) >= ENOUGH && SERVED.load(Ordering::Relaxed) >= ENOUGH / 10;
        while start.elapsed() < MOMENT || !is_flooded() {
            spin_hint();
        }
        is_over.store(1, Ordering::Relaxed);
    });
    let used = highest - LOWEST.load(Ordering::Relaxed);
    assert!(used < MOST_STACK, "{used} bytes of stack");
}
