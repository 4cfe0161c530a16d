//! `preempt_count`: one word that says what may interrupt or preempt the running code.
//!
//! ```text
//!    31   30          24 23    20 19    16 15      9 8  7             0
//!   +---+---------------+--------+--------+---------+--+---------------+
//!   | E |  irq-off depth|  NMI   | hardirq|  bh off |S |  preempt off  |
//!   +---+---------------+--------+--------+---------+--+---------------+
//!     |                                     softirq  |
//!     |                                              serving a softirq
//!     interrupts were enabled when irq-off depth left 0
//! ```
//! 0 is a task that may be preempted. Bits 0 to 23 are those of Linux's include/linux/preempt.h. The upper
//! eight are the count of interrupt-disabling guards, as proposed for Linux's Rust spin locks ("hard-irq disable
//! count"): saved flags in each guard are right only if guards end in the reverse order; a count is right in
//! any order.
//!
//! # Order of accesses
//! Only the CPU (or task) that owns the word writes it, and an interrupt leaves it as it found it. So a change
//! is a plain load and a plain store, never a locked instruction. Against interrupts, the compiler is kept
//! from moving the critical section out by [`signal_fence`] after each increase and before each decrease.

use core::fmt;

use crosslock_core::primitive::{AtomicU32, Ordering, signal_fence};

const PREEMPT_BITS: u32 = 8;
const SOFTIRQ_BITS: u32 = 8;
const HARDIRQ_BITS: u32 = 4;
const NMI_BITS: u32 = 4;
const IRQ_OFF_BITS: u32 = 7;

const SOFTIRQ_SHIFT: u32 = PREEMPT_BITS;
const HARDIRQ_SHIFT: u32 = SOFTIRQ_SHIFT + SOFTIRQ_BITS;
const NMI_SHIFT: u32 = HARDIRQ_SHIFT + HARDIRQ_BITS;
const IRQ_OFF_SHIFT: u32 = NMI_SHIFT + NMI_BITS;

const fn field(bits: u32, shift: u32) -> u32 {
    ((1 << bits) - 1) << shift
}

const PREEMPT_MASK: u32 = field(PREEMPT_BITS, 0);
const SOFTIRQ_MASK: u32 = field(SOFTIRQ_BITS, SOFTIRQ_SHIFT);
const HARDIRQ_MASK: u32 = field(HARDIRQ_BITS, HARDIRQ_SHIFT);
const NMI_MASK: u32 = field(NMI_BITS, NMI_SHIFT);
const IRQ_OFF_MASK: u32 = field(IRQ_OFF_BITS, IRQ_OFF_SHIFT);

/// One level of disabled preemption.
pub const PREEMPT_OFFSET: u32 = 1;
/// A softirq is being served.
pub const SOFTIRQ_OFFSET: u32 = 1 << SOFTIRQ_SHIFT;
/// One level of disabled bottom halves: bit 8 is left to [`SOFTIRQ_OFFSET`].
pub const SOFTIRQ_DISABLE_OFFSET: u32 = 2 * SOFTIRQ_OFFSET;
/// One level of interrupt handlers.
pub const HARDIRQ_OFFSET: u32 = 1 << HARDIRQ_SHIFT;
/// One level of non-maskable interrupt handlers.
pub const NMI_OFFSET: u32 = 1 << NMI_SHIFT;
const IRQ_OFF_OFFSET: u32 = 1 << IRQ_OFF_SHIFT;
const IRQS_WERE_ON: u32 = 1 << 31;

/// How deep interrupt-disabling guards may nest.
pub const MAX_IRQ_DEPTH: u32 = IRQ_OFF_MASK >> IRQ_OFF_SHIFT;

/// A value of the word.
///
/// ```
/// use crosslock_kernel::preempt_count::{Count, HARDIRQ_OFFSET, PREEMPT_OFFSET};
/// let count = Count::from_bits(HARDIRQ_OFFSET + PREEMPT_OFFSET);
/// assert!(count.in_hardirq() && !count.in_task());
/// assert_eq!(count.to_string(), "(preempt 1, softirq 0, hardirq 1, nmi 0, irqs off 0)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Count(u32);

impl Count {
    /// What the 32 bits say.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How often preemption is disabled.
    #[must_use]
    pub const fn preempt(self) -> u32 {
        self.0 & PREEMPT_MASK
    }

    /// How often bottom halves are disabled, not counting the one that is being served.
    #[must_use]
    pub const fn softirq_disabled(self) -> u32 {
        (self.0 & SOFTIRQ_MASK) / SOFTIRQ_DISABLE_OFFSET
    }

    /// How deep interrupt handlers are nested.
    #[must_use]
    pub const fn hardirq(self) -> u32 {
        (self.0 & HARDIRQ_MASK) >> HARDIRQ_SHIFT
    }

    /// How deep non-maskable interrupt handlers are nested.
    #[must_use]
    pub const fn nmi(self) -> u32 {
        (self.0 & NMI_MASK) >> NMI_SHIFT
    }

    /// How many guards keep interrupts disabled.
    #[must_use]
    pub const fn irq_off_depth(self) -> u32 {
        (self.0 & IRQ_OFF_MASK) >> IRQ_OFF_SHIFT
    }

    /// Neither in a handler of any kind, nor serving a softirq. Bottom halves may be disabled.
    #[must_use]
    pub const fn in_task(self) -> bool {
        self.0 & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_OFFSET) == 0
    }

    /// Serving a softirq, or bottom halves are disabled.
    #[must_use]
    pub const fn in_softirq(self) -> bool {
        self.0 & SOFTIRQ_MASK != 0
    }

    /// Serving a softirq.
    #[must_use]
    pub const fn in_serving_softirq(self) -> bool {
        self.0 & SOFTIRQ_OFFSET != 0
    }

    /// In an interrupt handler.
    #[must_use]
    pub const fn in_hardirq(self) -> bool {
        self.0 & HARDIRQ_MASK != 0
    }

    /// In a non-maskable interrupt handler.
    #[must_use]
    pub const fn in_nmi(self) -> bool {
        self.0 & NMI_MASK != 0
    }

    /// In a handler of any kind, serving a softirq, or with bottom halves disabled: softirqs cannot run here.
    #[must_use]
    pub const fn in_interrupt(self) -> bool {
        self.0 & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_MASK) != 0
    }

    /// Whether code may sleep here, as far as this word knows: bottom halves may be disabled, all else must be 0.
    #[must_use]
    pub const fn may_sleep(self) -> bool {
        self.0 & !(SOFTIRQ_MASK & !SOFTIRQ_OFFSET) == 0
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "(preempt {}, softirq {}{}, hardirq {}, nmi {}, irqs off {})",
            self.preempt(),
            self.softirq_disabled(),
            if self.in_serving_softirq() { " serving" } else { "" },
            self.hardirq(),
            self.nmi(),
            self.irq_off_depth(),
        )
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} {self}", self.0)
    }
}

/// The word itself: of a CPU, or of a task.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct PreemptCount(AtomicU32);

impl PreemptCount {
    /// Of a task that may be preempted.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The value now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Count {
        Count(self.0.load(Ordering::Relaxed))
    }

    /// Adds one or several of the offsets.
    #[inline]
    pub fn add(&self, offset: u32) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(offset), Ordering::Relaxed);
        signal_fence();
    }

    /// Takes back what [`PreemptCount::add`] added; gives the value after.
    ///
    /// # Safety
    /// It was added, for a context that is over.
    #[inline]
    pub unsafe fn sub(&self, offset: u32) -> Count {
        self.subtract(offset)
    }

    #[inline]
    pub(crate) fn subtract(&self, offset: u32) -> Count {
        signal_fence();
        let left = self.0.load(Ordering::Relaxed).wrapping_sub(offset);
        self.0.store(left, Ordering::Relaxed);
        Count(left)
    }

    /// One more guard keeps interrupts disabled, which they are. `were_on`: they were not, just before.
    ///
    /// `false`, and nothing is changed, where there are [`MAX_IRQ_DEPTH`] such guards already.
    #[inline]
    pub(crate) fn irq_off(&self, were_on: bool, offset: u32) -> bool {
        let old = self.0.load(Ordering::Relaxed);
        if old & IRQ_OFF_MASK == IRQ_OFF_MASK {
            return false;
        }
        // Bit 31 is 0 while the depth is 0; deeper guards find interrupts disabled, and add nothing.
        let outermost = old & IRQ_OFF_MASK == 0;
        let mark = if were_on && outermost { IRQS_WERE_ON } else { 0 };
        self.0.store(old.wrapping_add(IRQ_OFF_OFFSET + offset) | mark, Ordering::Relaxed);
        signal_fence();
        true
    }

    /// One guard less; whether interrupts are to be enabled now. They are still disabled.
    #[inline]
    pub(crate) fn irq_on(&self) -> bool {
        signal_fence();
        let left = self.0.load(Ordering::Relaxed).wrapping_sub(IRQ_OFF_OFFSET);
        let enable = left & (IRQ_OFF_MASK | IRQS_WERE_ON) == IRQS_WERE_ON;
        self.0.store(if enable { left & !IRQS_WERE_ON } else { left }, Ordering::Relaxed);
        enable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap_and_fill_the_word() {
        let masks = [PREEMPT_MASK, SOFTIRQ_MASK, HARDIRQ_MASK, NMI_MASK, IRQ_OFF_MASK, IRQS_WERE_ON];
        assert_eq!(masks.iter().fold(0, |all, mask| all | mask), u32::MAX);
        assert_eq!(masks.iter().map(|mask| mask.count_ones()).sum::<u32>(), 32);
        // The numbers of Linux.
        assert_eq!([PREEMPT_MASK, SOFTIRQ_MASK, HARDIRQ_MASK, NMI_MASK], [0xff, 0xff00, 0xf_0000, 0xf0_0000]);
    }

    #[test]
    fn interrupts_come_back_with_the_last_guard_in_whatever_order() {
        let count = PreemptCount::new();
        assert!(count.irq_off(true, PREEMPT_OFFSET));
        assert!(count.irq_off(false, PREEMPT_OFFSET));
        assert_eq!((count.get().irq_off_depth(), count.get().preempt()), (2, 2));
        assert!(!count.irq_on());
        assert!(count.irq_on());
        assert_eq!(count.subtract(2 * PREEMPT_OFFSET).bits(), 0);
    }

    #[test]
    fn interrupts_that_were_off_stay_off() {
        let count = PreemptCount::new();
        count.add(HARDIRQ_OFFSET);
        assert!(count.irq_off(false, 0));
        assert!(!count.irq_on());
        assert_eq!(count.subtract(HARDIRQ_OFFSET).bits(), 0);
    }

    #[test]
    fn too_deep_a_nesting_is_refused_and_changes_nothing() {
        let count = PreemptCount::new();
        for _ in 0..MAX_IRQ_DEPTH {
            assert!(count.irq_off(true, 0));
        }
        let before = count.get();
        assert!(!count.irq_off(true, 0));
        assert_eq!(count.get(), before);
    }

    #[test]
    fn contexts_are_told_apart() {
        let in_context = |bits| {
            let count = Count::from_bits(bits);
            (
                count.in_task(),
                count.in_softirq(),
                count.in_serving_softirq(),
                count.in_hardirq(),
                count.in_nmi(),
            )
        };
        assert_eq!(in_context(PREEMPT_OFFSET), (true, false, false, false, false));
        assert_eq!(in_context(SOFTIRQ_DISABLE_OFFSET), (true, true, false, false, false));
        assert_eq!(in_context(SOFTIRQ_OFFSET), (false, true, true, false, false));
        assert_eq!(in_context(HARDIRQ_OFFSET), (false, false, false, true, false));
        assert_eq!(in_context(NMI_OFFSET + HARDIRQ_OFFSET), (false, false, false, true, true));
    }

    #[test]
    fn only_a_task_may_sleep() {
        assert!(Count::from_bits(0).may_sleep());
        assert!(Count::from_bits(SOFTIRQ_DISABLE_OFFSET).may_sleep());
        for bits in [PREEMPT_OFFSET, SOFTIRQ_OFFSET, HARDIRQ_OFFSET, NMI_OFFSET, IRQ_OFF_OFFSET] {
            assert!(!Count::from_bits(bits).may_sleep(), "{bits:#x}");
        }
    }
}
