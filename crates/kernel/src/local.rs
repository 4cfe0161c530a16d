//! What this CPU lets happen: preemption, interrupts and bottom halves, disabled and enabled without a lock.

use core::marker::PhantomData;
use core::panic::Location;

use crate::marker::{Names, OfThisCpu};
use crate::platform::Platform;
use crate::preempt_count::{PREEMPT_OFFSET, SOFTIRQ_DISABLE_OFFSET};
use crate::report::{Problem, Report, fail};
use crate::softirq;

/// One level less; at the last one, the scheduler's turn if it wants one.
///
/// An interrupt that asks for the scheduler between the store and the look finds preemption enabled, and is
/// answered at its own end.
///
/// # Safety
/// Takes back one level that was added.
#[inline]
pub(crate) unsafe fn preempt_enable<P: Platform>() {
    // SAFETY: the caller's.
    let left = unsafe { P::preempt_sub(PREEMPT_OFFSET) };
    if left.bits() == 0 && P::need_resched() && !P::irqs_disabled() {
        P::preempt_schedule();
    }
}

/// Interrupts off, whatever they were; `offset` goes to `preempt_count` in the same store.
#[inline]
#[track_caller]
pub(crate) fn irq_off<P: Platform>(offset: u32) {
    let were_on = P::irq_save();
    count_irq_off::<P>(were_on, offset);
}

/// Interrupts off, which are known to be on: unless another guard keeps them off.
#[inline]
#[track_caller]
pub(crate) fn irq_off_known<P: Platform>(offset: u32) {
    #[cfg(feature = "debug-checks")]
    if P::irqs_disabled() {
        fail::<P>(&Report::of(Problem::IrqsAlreadyDisabled, Location::caller()));
    }
    P::irq_disable();
    count_irq_off::<P>(true, offset);
}

#[inline]
#[track_caller]
fn count_irq_off<P: Platform>(were_on: bool, offset: u32) {
    if !P::this_cpu().count.irq_off(were_on, offset) {
        too_deep::<P>(Location::caller());
    }
}

#[cold]
#[inline(never)]
fn too_deep<P: Platform>(at: &'static Location<'static>) {
    fail::<P>(&Report::of(Problem::NestedTooDeep, at));
}

/// One guard less that keeps interrupts off; with the last one they become what they were, and softirqs that were
/// raised meanwhile run.
///
/// # Safety
/// Takes back one `irq_off`, on its CPU.
#[inline]
pub(crate) unsafe fn irq_on<P: Platform>() {
    if P::this_cpu().count.irq_on() {
        // SAFETY: they were on before the outermost guard, which is over.
        unsafe { P::irq_enable() };
        softirq::run_if_pending::<P>();
    }
}

/// One level less of disabled bottom halves; at the last one those that are pending run.
///
/// # Safety
/// Takes back one level that was added. Preemption is disabled.
#[inline]
pub(crate) unsafe fn bh_enable<P: Platform>() {
    // SAFETY: the caller's.
    unsafe { P::preempt_sub(SOFTIRQ_DISABLE_OFFSET) };
    softirq::run_if_pending::<P>();
}

macro_rules! guard {
    ($(#[$doc:meta])* $guard:ident, $function:ident, $enter:block, $exit:block) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[must_use = "what is disabled is enabled when the guard is dropped"]
        pub struct $guard<P: Platform>(Names<P>, OfThisCpu);

        $(#[$doc])*
        #[inline]
        #[track_caller]
        pub fn $function<P: Platform>() -> $guard<P> {
            $enter
            $guard(PhantomData, PhantomData)
        }

        impl<P: Platform> Drop for $guard<P> {
            #[inline]
            fn drop(&mut self) {
                $exit
            }
        }
    };
}

guard! {
    /// Keeps the running code from being preempted, and so on its CPU (`preempt_disable`).
    PreemptGuard, preempt_disable, { P::preempt_add(PREEMPT_OFFSET); }, {
        // SAFETY: the guard stands for one level.
        unsafe { preempt_enable::<P>() };
    }
}

guard! {
    /// Keeps the running code on its CPU, where others may preempt it (`migrate_disable`).
    MigrateGuard, migrate_disable, { P::migrate_disable(); }, {
        // SAFETY: the guard stands for one level.
        unsafe { P::migrate_enable() };
    }
}

guard! {
    /// Keeps interrupts away (`local_irq_save`); with the last such guard they become what they were.
    IrqGuard, local_irq_save, { irq_off::<P>(0); }, {
        // SAFETY: the guard stands for one `irq_off`, and does not leave its CPU.
        unsafe { irq_on::<P>() };
    }
}

guard! {
    /// Keeps softirqs away (`local_bh_disable`). Those raised meanwhile run at the end of the last such guard.
    BhGuard, local_bh_disable, { P::preempt_add(SOFTIRQ_DISABLE_OFFSET); }, {
        // SAFETY: the guard stands for one level.
        unsafe { bh_enable_in_place::<P>() };
    }
}

/// [`bh_enable`] for code that may be preempted: which is kept from it while softirqs run.
///
/// # Safety
/// Takes back one level that was added.
#[inline]
pub(crate) unsafe fn bh_enable_in_place<P: Platform>() {
    let kept = preempt_disable::<P>();
    // SAFETY: the caller's.
    unsafe { bh_enable::<P>() };
    drop(kept);
}
