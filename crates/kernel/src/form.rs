//! The forms in which a lock is taken: what is disabled while it is held.

use crate::local;
use crate::platform::Platform;
use crate::preempt_count::{PREEMPT_OFFSET, SOFTIRQ_DISABLE_OFFSET};

/// A form, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormKind {
    /// Preemption is disabled.
    Plain,
    /// Also interrupts, which the caller knows to be enabled.
    Irq,
    /// Also interrupts, whatever they were.
    IrqSave,
    /// Also bottom halves.
    Bh,
}

/// A form, as a type: [`Plain`], [`Irq`], [`IrqSave`] or [`Bh`].
pub trait Form: sealed::Sealed + 'static {
    /// The same as a value.
    const KIND: FormKind;
}

mod sealed {
    use crate::platform::Platform;

    pub trait Sealed {
        /// Disables what the form disables.
        #[track_caller]
        fn enter<P: Platform>();

        /// Takes that back: first interrupts or bottom halves, then preemption, then the scheduler's turn.
        ///
        /// # Safety
        /// Takes back one `enter`, on its CPU.
        unsafe fn exit<P: Platform>();
    }
}
pub(crate) use sealed::Sealed;

/// `spin_lock`: preemption is disabled.
#[derive(Debug)]
pub struct Plain;

/// `spin_lock_irq`: interrupts, too; the caller knows that they are enabled.
#[derive(Debug)]
pub struct Irq;

/// `spin_lock_irqsave`: interrupts, too; with the last such guard they become what they were.
#[derive(Debug)]
pub struct IrqSave;

/// `spin_lock_bh`: bottom halves, too.
#[derive(Debug)]
pub struct Bh;

impl Form for Plain {
    const KIND: FormKind = FormKind::Plain;
}

impl Sealed for Plain {
    #[inline]
    fn enter<P: Platform>() {
        P::preempt_add(PREEMPT_OFFSET);
    }

    #[inline]
    unsafe fn exit<P: Platform>() {
        // SAFETY: the caller's.
        unsafe { local::preempt_enable::<P>() };
    }
}

impl Form for Irq {
    const KIND: FormKind = FormKind::Irq;
}

impl Sealed for Irq {
    #[inline]
    #[track_caller]
    fn enter<P: Platform>() {
        local::irq_off_known::<P>(PREEMPT_OFFSET);
    }

    #[inline]
    unsafe fn exit<P: Platform>() {
        // SAFETY: the caller's.
        unsafe { local::irq_on::<P>() };
        // SAFETY: the caller's.
        unsafe { local::preempt_enable::<P>() };
    }
}

impl Form for IrqSave {
    const KIND: FormKind = FormKind::IrqSave;
}

impl Sealed for IrqSave {
    #[inline]
    #[track_caller]
    fn enter<P: Platform>() {
        local::irq_off::<P>(PREEMPT_OFFSET);
    }

    #[inline]
    unsafe fn exit<P: Platform>() {
        // SAFETY: the caller's.
        unsafe { local::irq_on::<P>() };
        // SAFETY: the caller's.
        unsafe { local::preempt_enable::<P>() };
    }
}

impl Form for Bh {
    const KIND: FormKind = FormKind::Bh;
}

impl Sealed for Bh {
    #[inline]
    fn enter<P: Platform>() {
        P::preempt_add(SOFTIRQ_DISABLE_OFFSET + PREEMPT_OFFSET);
    }

    #[inline]
    unsafe fn exit<P: Platform>() {
        // SAFETY: the caller's.
        unsafe { local::bh_enable::<P>() };
        // SAFETY: the caller's.
        unsafe { local::preempt_enable::<P>() };
    }
}
