//! The lock of a uniprocessor: nobody else can hold it, so there is nothing to wait for.
//!
//! | | bytes | lock and unlock | `try_lock` where this CPU holds it |
//! |---|---|---|---|
//! | [`Up`] | 4 | a load, two stores; no locked instruction | `None` |
//! | [`UpUnchecked`] | 0 | nothing | a second guard: undefined behaviour, unless the rule is obeyed |
//!
//! Preemption, interrupts and bottom halves are disabled by the layer above, as on several CPUs. Linux's
//! uniprocessor build has the second one, and the first with `CONFIG_DEBUG_SPINLOCK`. There a wrong use is a
//! race; in Rust it would be two `&mut` to the same data, so the first one is what a platform should choose.

use crosslock_core::primitive::{AtomicU32, Ordering, signal_fence};
use crosslock_core::{Context, Corrupted};

use crate::arch::{ArchSpinLock, ExcludesItself, Failure};

/// A uniprocessor's lock that knows whether it is held.
///
/// `try_lock` never fails because of another CPU, for there is none; it fails in a handler that has
/// interrupted the holder, and in the holder itself. `lock` reports a deadlock there.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Up(AtomicU32);

// SAFETY: HELD is for everybody.
unsafe impl ExcludesItself for Up {}

const FREE: u32 = 0;
const HELD: u32 = 1;

// SAFETY: who comes on the same CPU while the lock is held finds HELD. A handler between the load and the store
// of `try_acquire` leaves the word as it found it.
unsafe impl<P: Context> ArchSpinLock<P> for Up {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(AtomicU32::new(FREE));
    const NAME: &'static str = "up";
    const SMP: bool = false;

    #[inline]
    fn acquire(&self, cx: &P) -> Result<(), Failure> {
        if self.try_acquire(cx) { Ok(()) } else { Err(Failure::Recursion) }
    }

    #[inline]
    fn try_acquire(&self, _cx: &P) -> bool {
        let free = self.0.load(Ordering::Relaxed) == FREE;
        if free {
            self.0.store(HELD, Ordering::Relaxed);
            signal_fence();
        }
        free
    }

    #[inline]
    unsafe fn release(&self, _cx: &P) -> Result<(), Corrupted> {
        signal_fence();
        self.0.store(FREE, Ordering::Relaxed);
        Ok(())
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }

    fn is_contended(&self) -> bool {
        false
    }
}

/// A uniprocessor's lock that is nothing at all.
///
/// A platform that chooses it promises, as part of the contract of [`Platform`](crate::Platform), that its code never
/// takes a lock that it holds, and takes each lock that a handler takes with that handler kept away
/// (`_irq`, `_irqsave`, `_bh`). With the feature `debug-checks`, breaches are found and reported.
#[derive(Debug, Default)]
pub struct UpUnchecked(());

// SAFETY: by the rule above, nobody comes while the lock is held.
unsafe impl<P: Context> ArchSpinLock<P> for UpUnchecked {
    const INIT: Self = Self(());
    const NAME: &'static str = "up-unchecked";
    const SMP: bool = false;
    const KNOWS: bool = false;

    #[inline]
    fn acquire(&self, _cx: &P) -> Result<(), Failure> {
        signal_fence();
        Ok(())
    }

    #[inline]
    fn try_acquire(&self, _cx: &P) -> bool {
        signal_fence();
        true
    }

    #[inline]
    unsafe fn release(&self, _cx: &P) -> Result<(), Corrupted> {
        signal_fence();
        Ok(())
    }

    fn is_locked(&self) -> bool {
        false
    }

    fn is_contended(&self) -> bool {
        false
    }
}
