//! Marks: where the victim stands in its operation, told to the tracer by a breakpoint instruction.
//!
//! The next instruction that the victim executes after [`Mark::Begin`] is the first of its operation.

/// How far the victim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Mark {
    /// All is prepared; the operation follows.
    Begin = 0x6b69_6c6c_0001,
    /// It has the lock.
    Held = 0x6b69_6c6c_0002,
    /// The operation is over.
    End = 0x6b69_6c6c_0003,
}

impl Mark {
    /// In the victim, which is traced: stops it.
    #[inline(always)]
    pub(super) fn tell(self) {
        // SAFETY: touches neither memory nor stack; the tracer looks at the register and goes on after it.
        unsafe { core::arch::asm!("int3", in("rdi") self as u64, options(nostack, preserves_flags)) };
    }

    /// In the tracer: what the victim's `rdi` says.
    pub(super) fn from_register(rdi: u64) -> Option<Self> {
        [Self::Begin, Self::Held, Self::End].into_iter().find(|&mark| mark as u64 == rdi)
    }
}
