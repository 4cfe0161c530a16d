//! The negative control: a lock that does not lock.

use core::fmt;

use crosslock::SegmentContext;
use crosslock_core::primitive::AtomicU32;
use crosslock_core::{Corrupted, LockType, RawLock};

/// Lets everybody in.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct Busted(AtomicU32);

// SAFETY: one 32-bit atomic, which nobody touches.
unsafe impl LockType for Busted {
    const NAME: &'static str = "busted";

    fn is_locked(&self) -> bool {
        false
    }

    fn describe(_word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("does not lock")
    }
}

// SAFETY: the contract is broken, and that is its purpose. It guards nothing but `arena`'s words, whose
// accesses are atomic, so no undefined behaviour follows.
unsafe impl RawLock<SegmentContext> for Busted {
    fn acquire(&self, _cx: &SegmentContext) -> Result<(), Corrupted> {
        Ok(())
    }

    fn try_acquire(&self, _cx: &SegmentContext) -> bool {
        true
    }

    unsafe fn release(&self, _cx: &SegmentContext) -> Result<(), Corrupted> {
        Ok(())
    }
}
