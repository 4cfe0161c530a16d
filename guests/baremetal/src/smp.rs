//! The other CPUs: how they are started, and get work.

use core::cell::UnsafeCell;
use core::fmt;

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};

use crate::arch::{interrupts, irq, machine};
use crate::cpu::MAX_CPUS;
use crate::interrupts::Irq;
use crate::{clock, console, cpu};

/// How long CPUs may take to come up, in microseconds.
const START_LIMIT_US: u64 = 5_000_000;

/// How long a CPU may take to begin what it was called for, in nanoseconds, until it is called again.
const CALL_LIMIT_NS: u64 = 1_000_000_000;

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

/// How far the CPUs are with the work that they were given, for whoever finds that it does not go on.
pub(crate) struct State;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, done) = (JOB.number.load(Ordering::Relaxed), JOB.done.load(Ordering::Relaxed));
        write!(f, "job {number}, done by {done}; begun:")?;
        SEEN.iter().try_for_each(|seen| write!(f, " {}", seen.load(Ordering::Relaxed)))
    }
}

/// The last job that each CPU has begun.
static SEEN: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// On the first CPU: starts the others; how many there are then.
pub(crate) fn start(cpus: usize) -> usize {
    let online = || cpu::all().iter().filter(|cpu| cpu.is_online()).count();
    if cpus > 1 {
        machine::start_others(cpus, clock::wait_us);
        let start = clock::Instant::now();
        while online() < cpus && start.elapsed_ns() / 1000 < START_LIMIT_US {
            spin_hint();
        }
    }
    online()
}

/// What the others do: work that comes, and waits for it.
pub(crate) fn serve(number: usize) -> ! {
    let mut seen = 0;
    loop {
        irq::disable();
        let job = JOB.number.load(Ordering::Acquire);
        if job == seen || job.is_multiple_of(2) {
            // Work is announced by an interrupt, which cannot come between the look and the wait.
            irq::enable_and_wait();
            continue;
        }
        irq::enable();
        seen = job;
        SEEN[number].store(job, Ordering::Relaxed);
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
    let number = JOB.number.fetch_add(1, Ordering::Release) + 1;
    for other in 1..cpus {
        interrupts::send(other, Irq::Call);
    }
    // All begin together, as far as that can be had.
    let mut asked = clock::Instant::now();
    while (1..cpus).any(|other| SEEN[other].load(Ordering::Relaxed) != number) {
        if asked.elapsed_ns() > CALL_LIMIT_NS {
            asked = clock::Instant::now();
            call_again(cpus, number);
        }
        spin_hint();
    }
    work(0);
    while JOB.done.load(Ordering::Acquire) as usize != cpus - 1 {
        spin_hint();
    }
    JOB.number.fetch_add(1, Ordering::Release);
}

/// Under an emulated KVM on a busy machine it was seen once in thousands of jobs that a CPU in HLT did not come. So whoever has
/// not come is called again, and the log says it.
#[cold]
fn call_again(cpus: usize, number: u32) {
    for other in (1..cpus).filter(|&other| SEEN[other].load(Ordering::Relaxed) != number) {
        console::log(format_args!("cpu {other} has not come to job {number}, and is called again"));
        interrupts::send(other, Irq::Call);
    }
}
