//! The other CPUs: how they are started, and get work.

use core::cell::UnsafeCell;

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use x86_64::instructions::interrupts;

use crate::interrupts::Irq;
use crate::{apic, boot, clock, cpu};

/// How long CPUs may take to come up, in microseconds.
const START_LIMIT_US: u64 = 5_000_000;

/// Work for all CPUs: each calls it once with its number.
type Work = dyn Fn(usize) + Sync;

struct Job {
    /// Counts jobs; odd while one is there to be done.
    number: AtomicU32,
    done: AtomicU32,
    work: UnsafeCell<Option<&'static Work>>,
}

// SAFETY: the first CPU writes `work` while `number` is even and all others wait for the next odd one.
unsafe impl Sync for Job {}

static JOB: Job = Job { number: AtomicU32::new(0), done: AtomicU32::new(0), work: UnsafeCell::new(None) };

/// On the first CPU: starts the others; how many there are then.
pub(crate) fn start(cpus: usize) -> usize {
    let online = || cpu::all().iter().filter(|cpu| cpu.is_online()).count();
    if cpus > 1 {
        boot::place_trampoline();
        apic::start_others(boot::TRAMPOLINE, clock::wait_us);
        let start = clock::Instant::now();
        while online() < cpus && start.elapsed_ns() / 1000 < START_LIMIT_US {
            spin_hint();
        }
    }
    online()
}

/// What the others do: work that comes, and HLT in between.
pub(crate) fn serve(number: usize) -> ! {
    let mut seen = 0;
    loop {
        interrupts::disable();
        let job = JOB.number.load(Ordering::Acquire);
        if job == seen || job % 2 == 0 {
            // Work is announced by an interrupt, which cannot come between the look and the HLT.
            interrupts::enable_and_hlt();
            continue;
        }
        interrupts::enable();
        seen = job;
        // SAFETY: `number` is odd, so the first CPU has written it, and waits for `done`.
        if let Some(work) = unsafe { *JOB.work.get() } {
            work(number);
        }
        JOB.done.fetch_add(1, Ordering::Release);
    }
}

/// On the first CPU: has the CPUs below `cpus` do `work`, itself among them, and waits until all have.
pub(crate) fn run(cpus: usize, work: &(dyn Fn(usize) + Sync)) {
    // SAFETY: nobody uses the longer lifetime: all calls are over when this returns.
    let work_for_all = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync + '_), &'static Work>(work) };
    // SAFETY: the number is even, so nobody looks.
    unsafe { *JOB.work.get() = Some(work_for_all) };
    JOB.done.store(0, Ordering::Relaxed);
    JOB.number.fetch_add(1, Ordering::Release);
    for other in 1..cpus {
        apic::send(other, Irq::Call);
    }
    work(0);
    while JOB.done.load(Ordering::Acquire) as usize != cpus - 1 {
        spin_hint();
    }
    JOB.number.fetch_add(1, Ordering::Release);
}
