//! Threads as CPUs.

use core::cell::Cell;
use core::marker::PhantomData;
use std::io;
use std::sync::OnceLock;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, signal_fence};
use crosslock_core::{CpuId, Event, HashEntry, PerCpu};

use crate::cpu_state::CpuState;
use crate::hosted::error::Error;
use crate::hosted::interrupt;

/// Threads that can be CPUs at once.
pub const MAX_CPUS: usize = 64;

/// What signals need to know of a CPU, beside what the kernel layers keep.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line {
    state: CpuState,
    /// The thread, 0 if there is none.
    tid: AtomicU32,
    /// 1 while interrupts are disabled; the thread's own.
    pub(super) irqs_off: AtomicU32,
    /// 1 where a handler has its signal blocked, so that who enables interrupts must unblock it; the thread's own.
    pub(super) is_blocked: AtomicU32,
    /// Interrupts that have come, one bit each.
    pub(super) pending: AtomicU64,
    /// Non-maskable ones: 1 if one has come.
    pub(super) nmi_pending: AtomicU64,
    resched: AtomicU32,
    reschedules: AtomicU64,
}

impl Line {
    const fn new() -> Self {
        Self {
            state: CpuState::new(),
            tid: AtomicU32::new(0),
            irqs_off: AtomicU32::new(0),
            is_blocked: AtomicU32::new(0),
            pending: AtomicU64::new(0),
            nmi_pending: AtomicU64::new(0),
            resched: AtomicU32::new(0),
            reschedules: AtomicU64::new(0),
        }
    }
}

static CPUS: [Line; MAX_CPUS] = [const { Line::new() }; MAX_CPUS];
pub(super) static NODES: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
pub(super) static HASH: [HashEntry; 4 * MAX_CPUS] = [const { HashEntry::new() }; 4 * MAX_CPUS];
static EVENTS: [AtomicU64; Event::COUNT] = [const { AtomicU64::new(0) }; Event::COUNT];
/// One bit for each CPU that a thread has.
static IN_USE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Neither has a destructor nor is made on first use: a signal handler may read them at any time.
    static NUMBER: Cell<Option<CpuId>> = const { Cell::new(None) };
    static THREAD: Cell<u32> = const { Cell::new(0) };
    static TURNS: Cell<u32> = const { Cell::new(0) };
}

/// Turns of spin loops after which a thread yields: some microseconds.
const TURNS_BEFORE_YIELD: u32 = 1 << 8;

/// One turn of a spin loop; whether it is time to let others run.
pub(super) fn spins_for_long() -> bool {
    let turns = TURNS.get().wrapping_add(1);
    TURNS.set(turns);
    turns.is_multiple_of(TURNS_BEFORE_YIELD)
}

/// The calling thread's CPU number.
pub(super) fn current() -> Option<CpuId> {
    NUMBER.get()
}

/// The calling thread's CPU, if it has one.
pub(super) fn this_line() -> Option<&'static Line> {
    NUMBER.get().map(|cpu| &CPUS[cpu.index()])
}

/// # Panics
/// Where it has none.
pub(super) fn this_state() -> (usize, &'static CpuState) {
    match NUMBER.get() {
        Some(cpu) => (cpu.index(), &CPUS[cpu.index()].state),
        None => panic!("this thread is no CPU: it needs a hosted::Cpu first"),
    }
}

/// The calling thread's number in the system.
pub(super) fn thread_id() -> u32 {
    let known = THREAD.get();
    if known != 0 {
        return known;
    }
    let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    THREAD.set(id);
    id
}

pub(super) fn count(event: Event, amount: u64) {
    EVENTS[event.index()].fetch_add(amount, Ordering::Relaxed);
}

/// How often `event` has happened in the queues of all locks so far.
#[must_use]
pub fn event_count(event: Event) -> u64 {
    EVENTS[event.index()].load(Ordering::Relaxed)
}

/// The calling thread as a CPU, until this is dropped.
///
/// A thread that drops it while it has something disabled, or a lock held, keeps the number for ever: it is given
/// to nobody else.
#[derive(Debug)]
#[must_use = "the thread is a CPU until this is dropped"]
pub struct Cpu {
    id: CpuId,
    /// Of this thread.
    not_send: PhantomData<*mut ()>,
}

impl Cpu {
    /// The lowest free number but 0, which is left to [`Cpu::claim_boot`].
    ///
    /// # Errors
    /// Where the thread is a CPU already, none is free, or the signals cannot be had.
    pub fn claim() -> Result<Self, Error> {
        loop {
            let free = (!IN_USE.load(Ordering::Relaxed) & !1).trailing_zeros() as usize;
            match Self::claim_number(free) {
                Err(Error::CpuInUse { .. }) if free < MAX_CPUS => {}
                other => return other,
            }
        }
    }

    /// CPU 0, the only one of a uniprocessor.
    ///
    /// # Errors
    /// As [`Cpu::claim`], or where it is in use.
    pub fn claim_boot() -> Result<Self, Error> {
        Self::claim_number(0)
    }

    fn claim_number(number: usize) -> Result<Self, Error> {
        let id = CpuId::new(number).filter(|_| number < MAX_CPUS).ok_or(Error::NoCpu)?;
        if let Some(is) = NUMBER.get() {
            return Err(Error::IsCpu { number: is.index() });
        }
        install_once()?;
        // Acquire: pairs with the Release in `drop`; the state is as the last thread left it.
        if IN_USE.fetch_or(1 << number, Ordering::Acquire) & 1 << number != 0 {
            return Err(Error::CpuInUse { number });
        }
        let line = &CPUS[number];
        line.pending.store(0, Ordering::Relaxed);
        line.nmi_pending.store(0, Ordering::Relaxed);
        line.resched.store(0, Ordering::Relaxed);
        let tid = thread_id();
        NUMBER.set(Some(id));
        // Release: who finds the thread finds nothing pending.
        line.tid.store(tid, Ordering::Release);
        Ok(Self { id, not_send: PhantomData })
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> CpuId {
        self.id
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        let line = &CPUS[self.id.index()];
        line.tid.store(0, Ordering::Relaxed);
        NUMBER.set(None);
        signal_fence();
        let idle = line.state.count.get().bits() == 0
            && line.state.pending_softirqs() == 0
            && line.irqs_off.load(Ordering::Relaxed) == 0
            && NODES[self.id.index()].depth() == 0;
        if idle {
            IN_USE.fetch_and(!(1 << self.id.index()), Ordering::Release);
        }
    }
}

fn install_once() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| interrupt::install().map_err(|error| error.raw_os_error().unwrap_or(0)));
    installed.map_err(|errno| Error::Os { call: "sigaction", source: io::Error::from_raw_os_error(errno) })
}

/// The line of CPU `cpu`, and its thread.
pub(super) fn online(cpu: CpuId) -> Result<(&'static Line, u32), Error> {
    let offline = Error::Offline { number: cpu.index() };
    let Some(line) = CPUS.get(cpu.index()) else {
        return Err(offline);
    };
    // Acquire: pairs with the Release in `claim_number`.
    match line.tid.load(Ordering::Acquire) {
        0 => Err(offline),
        tid => Ok((line, tid)),
    }
}

/// Has CPU `cpu` call the scheduler when it next enables preemption.
///
/// # Errors
/// [`Error::Offline`].
pub fn set_need_resched(cpu: CpuId) -> Result<(), Error> {
    online(cpu)?.0.resched.store(1, Ordering::Relaxed);
    Ok(())
}

pub(super) fn need_resched() -> bool {
    this_line().is_some_and(|line| line.resched.load(Ordering::Relaxed) != 0)
}

pub(super) fn clear_need_resched() {
    if let Some(line) = this_line() {
        line.resched.store(0, Ordering::Relaxed);
        line.reschedules.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often CPU `cpu` has called the scheduler.
///
/// # Errors
/// [`Error::Offline`].
pub fn reschedules(cpu: CpuId) -> Result<u64, Error> {
    Ok(online(cpu)?.0.reschedules.load(Ordering::Relaxed))
}
