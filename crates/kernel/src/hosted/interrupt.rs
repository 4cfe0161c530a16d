//! Signals as interrupts.
//!
//! ```text
//!   sender                              the CPU's thread
//!   ---------------------------------   ----------------------------------------
//!   pending |= line    (Release)        signal: disabled? then return, it stays pending
//!   was it empty? then send a signal    else take all that is pending, handle it
//!                                       enable: flag = 0; anything pending? handle it
//! ```
//! The flag is cleared before the look at `pending`, and a signal that comes between the two finds interrupts
//! enabled: so none is left over. A line that is pending already is not sent again, as by real controllers.
//!
//! A handler has its signal blocked, and the return from it lets the next one come, as IRET does: were it the flag alone, a
//! handler's last instructions could be interrupted, and those of that one, until the stack is full. Softirqs are served with
//! interrupts enabled, so for them it is unblocked, and they are not served again inside: no more than two nest.

use core::ffi::c_int;
use core::{mem, ptr};
use std::io;

use crosslock_core::CpuId;
use crosslock_core::primitive::{AtomicU64, Ordering, signal_fence};

use crate::hosted::cpu::{self, Line};
use crate::hosted::error::Error;
use crate::hosted::{Hosted, Native};
use crate::platform::Platform;
use crate::softirq::{SOFTIRQS, hardirq, nmi};

/// Interrupt lines.
pub const LINES: u32 = 32;

/// A function, in a word that a signal handler can read.
struct Function(AtomicU64);

impl Function {
    const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether there was none.
    fn set(&self, function: fn()) -> bool {
        let address = (function as *const ()).expose_provenance() as u64;
        // Release: pairs with the Acquire in `call`; the function finds what was made ready for it.
        self.0.compare_exchange(0, address, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn call(&self) {
        let address = usize::try_from(self.0.load(Ordering::Acquire)).unwrap_or(0);
        let pointer = ptr::with_exposed_provenance::<()>(address);
        // SAFETY: `set` stored the address of an `fn()`; 0 is `None`.
        let function = unsafe { mem::transmute::<*const (), Option<fn()>>(pointer) };
        if let Some(function) = function {
            function();
        }
    }
}

static HANDLERS: [Function; LINES as usize] = [const { Function::none() }; LINES as usize];
static SOFTIRQ_HANDLERS: [Function; SOFTIRQS as usize] = [const { Function::none() }; SOFTIRQS as usize];
static NMI_HANDLER: Function = Function::none();

/// A handler, on its line until this is dropped. One that runs then still ends.
#[derive(Debug)]
#[must_use = "the handler is taken from its line when this is dropped"]
pub struct Action(&'static Function);

impl core::fmt::Debug for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Function({:#x})", self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        self.0.clear();
    }
}

fn attach(table: &'static [Function], line: u32, handler: fn()) -> Result<Action, Error> {
    let function = table.get(line as usize).ok_or(Error::NoSuchLine { line })?;
    if function.set(handler) { Ok(Action(function)) } else { Err(Error::LineInUse { line }) }
}

/// Has `handler` run, as a hardirq, on whichever CPU [`interrupt`] calls on `line`.
///
/// # Errors
/// Where there is no such line, or it has a handler.
pub fn request_irq(line: u32, handler: fn()) -> Result<Action, Error> {
    attach(&HANDLERS, line, handler)
}

/// Has `handler` run as softirq `vector`, where [`raise_softirq`](crate::raise_softirq) has been called.
///
/// # Errors
/// Where there is no such vector, or it has a handler.
pub fn open_softirq(vector: u32, handler: fn()) -> Result<Action, Error> {
    attach(&SOFTIRQ_HANDLERS, vector, handler)
}

/// Has `handler` run at non-maskable interrupts.
///
/// # Errors
/// Where there is one already.
pub fn on_nmi(handler: fn()) -> Result<Action, Error> {
    attach(core::slice::from_ref(&NMI_HANDLER), 0, handler)
}

pub(super) fn run_softirq(vector: u32) {
    if let Some(function) = SOFTIRQ_HANDLERS.get(vector as usize) {
        function.call();
    }
}

/// Interrupts CPU `cpu` on `line`. May be called from anywhere, handlers included.
///
/// # Errors
/// Where there is no such line, the CPU is offline, or the signal cannot be sent.
pub fn interrupt(cpu: CpuId, line: u32) -> Result<(), Error> {
    if line >= LINES {
        return Err(Error::NoSuchLine { line });
    }
    let (target, tid) = cpu::online(cpu)?;
    // AcqRel: the handler sees what was written before; and who finds lines pending comes after their sender.
    if target.pending.fetch_or(1 << line, Ordering::AcqRel) == 0 {
        send(tid, irq_signal())?;
    }
    Ok(())
}

/// Interrupts CPU `cpu`, whatever it has disabled. One that comes while its handler runs follows it.
///
/// # Errors
/// Where the CPU is offline, or the signal cannot be sent.
pub fn nmi_interrupt(cpu: CpuId) -> Result<(), Error> {
    let (target, tid) = cpu::online(cpu)?;
    if target.nmi_pending.fetch_or(1, Ordering::AcqRel) == 0 {
        send(tid, nmi_signal())?;
    }
    Ok(())
}

fn irq_signal() -> c_int {
    libc::SIGRTMIN() + 8
}

fn nmi_signal() -> c_int {
    libc::SIGRTMIN() + 9
}

/// A thread that is gone, or another that has its number since, has nothing pending, and ignores it.
fn send(tid: u32, signal: c_int) -> Result<(), Error> {
    let tid = libc::pid_t::try_from(tid).unwrap_or(libc::pid_t::MAX);
    let process = libc::pid_t::try_from(std::process::id()).unwrap_or(libc::pid_t::MAX);
    // SAFETY: only sends a signal, within this process.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal) };
    let error = io::Error::last_os_error();
    if sent == 0 || error.raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    Err(Error::Os { call: "tgkill", source: error })
}

/// Makes the signals interrupts.
pub(super) fn install() -> io::Result<()> {
    sigaction(irq_signal(), on_irq_signal)?;
    sigaction(nmi_signal(), on_nmi_signal)
}

fn sigaction(signal: c_int, handler: extern "C" fn(c_int)) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid value of this C struct: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = (handler as *const ()).addr();
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the mask lives, and it is a signal. Maskable ones wait until the other's handler is over.
    unsafe { libc::sigaddset(&raw mut action.sa_mask, irq_signal()) };
    // SAFETY: the action is complete, and its handler keeps to what a signal handler may do.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the interrupted code finds as it left it.
struct SavedErrno(c_int);

fn errno() -> *mut c_int {
    // SAFETY: gives the address of this thread's errno.
    unsafe { libc::__errno_location() }
}

impl SavedErrno {
    fn new() -> Self {
        // SAFETY: this thread's, and always there.
        Self(unsafe { *errno() })
    }
}

impl Drop for SavedErrno {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { *errno() = self.0 };
    }
}

extern "C" fn on_irq_signal(_: c_int) {
    let _errno = SavedErrno::new();
    if let Some(line) = cpu::this_line()
        && line.irqs_off.load(Ordering::Relaxed) == 0
    {
        line.is_blocked.store(1, Ordering::Relaxed);
        while line.pending.load(Ordering::Relaxed) != 0 {
            handle(line);
            let served = line.is_blocked.swap(1, Ordering::Relaxed) == 0;
            if served {
                mask(libc::SIG_BLOCK);
            }
            signal_fence();
            line.irqs_off.store(0, Ordering::Relaxed);
            signal_fence();
            if !served {
                // What has come meanwhile has a signal of its own. Where softirqs were served, that may have come and gone.
                break;
            }
        }
        reschedule();
        line.is_blocked.store(0, Ordering::Relaxed);
    }
}

extern "C" fn on_nmi_signal(_: c_int) {
    let _errno = SavedErrno::new();
    if let Some(line) = cpu::this_line()
        && line.nmi_pending.swap(0, Ordering::AcqRel) != 0
    {
        // As the CPU does. Their signal is blocked, too, so none is missed: it comes when this one returns.
        let were_off = line.irqs_off.swap(1, Ordering::Relaxed);
        signal_fence();
        // SAFETY: this is the entry of the interrupt.
        unsafe { nmi::<Hosted<Native>, _>(|| NMI_HANDLER.call()) };
        signal_fence();
        line.irqs_off.store(were_off, Ordering::Relaxed);
    }
}

/// The entry of an interrupt: disables interrupts, and handles what is pending. They stay disabled.
fn handle(line: &Line) {
    line.irqs_off.store(1, Ordering::Relaxed);
    signal_fence();
    // AcqRel: the other side of `interrupt`.
    let mut lines = line.pending.swap(0, Ordering::AcqRel);
    // SAFETY: this is the entry of the interrupt, and interrupts are disabled.
    unsafe {
        hardirq::<Hosted<Native>, _>(|| {
            while lines != 0 {
                HANDLERS[lines.trailing_zeros() as usize].call();
                lines &= lines - 1;
            }
        });
    }
}

/// Interrupts are enabled before and after.
fn deliver(line: &Line) {
    while line.pending.load(Ordering::Relaxed) != 0 {
        handle(line);
        signal_fence();
        line.irqs_off.store(0, Ordering::Relaxed);
        signal_fence();
    }
    reschedule();
}

fn reschedule() {
    if Hosted::<Native>::preempt_count().bits() == 0 && cpu::need_resched() {
        Hosted::<Native>::preempt_schedule();
    }
}

/// Lets the maskable signal come to this thread, or not.
fn mask(how: c_int) {
    // SAFETY: all bytes zero is a valid value of this C type.
    let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives, and it is a signal.
    unsafe { libc::sigaddset(&raw mut signals, irq_signal()) };
    // SAFETY: the set lives; this thread's mask alone is changed.
    let failed = unsafe { libc::pthread_sigmask(how, &raw const signals, ptr::null_mut()) };
    assert_eq!(failed, 0, "the mask of a signal that exists can be changed");
}

pub(super) fn are_disabled() -> bool {
    cpu::this_line().is_some_and(|line| line.irqs_off.load(Ordering::Relaxed) != 0)
}

pub(super) fn disable() {
    if let Some(line) = cpu::this_line() {
        line.irqs_off.store(1, Ordering::Relaxed);
        signal_fence();
    }
}

pub(super) fn enable() {
    if let Some(line) = cpu::this_line() {
        signal_fence();
        if line.is_blocked.swap(0, Ordering::Relaxed) != 0 {
            mask(libc::SIG_UNBLOCK);
        }
        line.irqs_off.store(0, Ordering::Relaxed);
        signal_fence();
        if line.pending.load(Ordering::Relaxed) != 0 {
            deliver(line);
        }
    }
}
