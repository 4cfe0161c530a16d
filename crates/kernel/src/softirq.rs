//! Softirqs: work that a handler puts off until interrupts are enabled again. And the entries of handlers.

use core::marker::PhantomData;

use crate::marker::Names;
use crate::platform::Platform;
use crate::preempt_count::{HARDIRQ_OFFSET, NMI_OFFSET, SOFTIRQ_OFFSET};

/// How many vectors there are.
pub const SOFTIRQS: u32 = u32::BITS;

/// How often softirqs that raise softirqs are served before the rest must wait for the next interrupt.
const MAX_RESTARTS: u32 = 10;

/// Has softirq `vector` run on this CPU: at once, if nothing keeps it away, else when that ends.
///
/// # Panics
/// Where `vector` is not below [`SOFTIRQS`].
pub fn raise_softirq<P: Platform>(vector: u32) {
    assert!(vector < SOFTIRQS, "softirq vector {vector} of {SOFTIRQS}");
    let guard = crate::local::local_irq_save::<P>();
    P::this_cpu().raise(1 << vector);
    drop(guard);
}

/// Runs what is pending, where softirqs may run.
#[inline]
pub(crate) fn run_if_pending<P: Platform>() {
    let cpu = P::this_cpu();
    if cpu.pending_softirqs() != 0 {
        run_if_allowed::<P>();
    }
}

#[cold]
fn run_if_allowed<P: Platform>() {
    if P::preempt_count().in_interrupt() || P::irqs_disabled() {
        return;
    }
    P::irq_disable();
    serve::<P>();
    // SAFETY: they were enabled before, and no lock has been taken since.
    unsafe { P::irq_enable() };
}

/// A count that goes back at the end, even of a handler that panics.
struct Counted<P: Platform>(u32, Names<P>);

impl<P: Platform> Counted<P> {
    fn new(offset: u32) -> Self {
        P::this_cpu().count.add(offset);
        Self(offset, PhantomData)
    }
}

impl<P: Platform> Drop for Counted<P> {
    fn drop(&mut self) {
        P::this_cpu().count.subtract(self.0);
    }
}

/// With interrupts disabled, in no other softirq; leaves them disabled.
fn serve<P: Platform>() {
    let cpu = P::this_cpu();
    let serving = Counted::<P>::new(SOFTIRQ_OFFSET);
    for _ in 0..MAX_RESTARTS {
        let mut pending = cpu.take_softirqs();
        if pending == 0 {
            break;
        }
        // SAFETY: softirqs hold no lock that handlers take, before they begin.
        unsafe { P::irq_enable() };
        while pending != 0 {
            let vector = pending.trailing_zeros();
            pending &= pending - 1;
            P::softirq(vector);
        }
        P::irq_disable();
    }
    drop(serving);
}

/// Runs an interrupt handler: `irq_enter`, `handler`, `irq_exit`, and the softirqs that it has raised.
///
/// ```text
///   task ----+                                    +---- task
///            | hardirq: interrupts disabled       |
///            +-------------------+      +---------+
///                                | softirqs:
///                                | enabled
///                                +------+
/// ```
/// Whether the scheduler has its turn after that, if `preempt_count` is 0 then, is the caller's to decide.
///
/// # Safety
/// Called by the code that an interrupt enters, with interrupts disabled on this CPU.
#[inline]
pub unsafe fn hardirq<P: Platform, R>(handler: impl FnOnce() -> R) -> R {
    let count = Counted::<P>::new(HARDIRQ_OFFSET);
    let result = handler();
    drop(count);
    let cpu = P::this_cpu();
    // A depth other than 0: the interrupt came although they were disabled, so it must not enable them.
    if cpu.pending_softirqs() != 0 && !cpu.count.get().in_interrupt() && cpu.count.get().irq_off_depth() == 0
    {
        serve::<P>();
    }
    result
}

/// Runs the handler of a non-maskable interrupt: `nmi_enter`, `handler`, `nmi_exit`.
///
/// # Safety
/// Called by the code that such an interrupt enters.
#[inline]
pub unsafe fn nmi<P: Platform, R>(handler: impl FnOnce() -> R) -> R {
    // Both, as in Linux: a handler of this kind is one of the other kind, too.
    let count = Counted::<P>::new(NMI_OFFSET + HARDIRQ_OFFSET);
    let result = handler();
    drop(count);
    result
}
