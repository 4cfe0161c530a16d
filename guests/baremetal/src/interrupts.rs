//! Interrupts: which there are, and who handles them.
//!
//! ```text
//!   task  <  softirq  <  hardirq Low  <  hardirq High  <  NMI        each can interrupt those before it
//! ```
//! A handler runs with interrupts off, unless it turns them on: then those of a higher priority come through. When
//! the outermost one is over, `crosslock_kernel` runs the softirqs that were raised, with interrupts on.

use crosslock_kernel::{hardirq, nmi};

use crate::platform::Plain;
use crate::{cpu, scene, watchdog};

/// A maskable interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Irq {
    /// For tests: of the lowest priority.
    Low,
    /// For tests: comes through while `Low` is handled with interrupts on.
    High,
    /// Another CPU has work for this one.
    Call,
    /// This CPU's timer.
    Timer,
    /// Ends a wait for an interrupt.
    Kick,
}

impl Irq {
    /// All of them. The architectures number them in this order.
    pub(crate) const ALL: [Self; 5] = [Self::Low, Self::High, Self::Call, Self::Timer, Self::Kick];
}

/// Handles an interrupt; `end` tells its controller that it has been handled.
///
/// # Safety
/// The CPU has just come here by an interrupt that is none of the non-maskable ones, and interrupts are off.
pub(crate) unsafe fn handle(irq: Irq, end: impl FnOnce()) {
    // SAFETY: the caller's.
    unsafe {
        hardirq::<Plain, _>(|| {
            if irq == Irq::Timer {
                cpu::add(&cpu::this().ticks, 1);
                watchdog::tick();
            }
            scene::now(|scene| scene.hardirq(irq));
            end();
        });
    }
}

/// Handles a non-maskable one.
///
/// # Safety
/// The CPU has just come here by such an interrupt.
pub(crate) unsafe fn handle_nmi() {
    // SAFETY: the caller's.
    unsafe { nmi::<Plain, _>(|| scene::now(|scene| scene.nmi())) };
}
