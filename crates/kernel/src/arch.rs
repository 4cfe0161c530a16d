//! The lowest layer, Linux's `arch_spinlock_t`: an algorithm, and nothing about interrupts.

use core::ptr;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{
    Context, Corrupted, LockType, PvOps, QWord, RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket,
};

/// Why a lock could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its memory, or that of its queue, holds what no lock writes.
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
    /// The caller would wait for itself.
    #[error("the lock is held by the one who asks for it")]
    Recursion,
}

/// An algorithm that [`RawSpinLock`](crate::RawSpinLock) can be made of, for the platform `P`.
///
/// # Safety
/// At most one caller is between a successful `acquire` or `try_acquire` and its `release`, and sees what the
/// one before it wrote; as long as callers keep their CPU meanwhile.
pub unsafe trait ArchSpinLock<P>: Sync {
    /// A free lock.
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value, copied wherever it is named")]
    const INIT: Self;

    /// What the algorithm is called.
    const NAME: &'static str;

    /// Whether it keeps other CPUs out; a uniprocessor's lock does not.
    const SMP: bool = true;

    /// Whether it knows that it is held; a lock that is nothing does not.
    const KNOWS: bool = true;

    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// [`Failure`]: the caller has not got the lock, and never will.
    fn acquire(&self, cx: &P) -> Result<(), Failure>;

    /// Takes the lock if it is free.
    fn try_acquire(&self, cx: &P) -> bool;

    /// Gives the lock up.
    ///
    /// # Errors
    /// [`Corrupted`], as [`RawLock::release`].
    ///
    /// # Safety
    /// The caller owns the lock, by an acquisition on this CPU.
    unsafe fn release(&self, cx: &P) -> Result<(), Corrupted>;

    /// Whether somebody holds the lock; old news when it arrives.
    fn is_locked(&self) -> bool;

    /// Whether somebody waits for it; `false` where the algorithm cannot tell.
    fn is_contended(&self) -> bool;
}

/// An [`ArchSpinLock`] that excludes whoever comes on its own CPU as well, be it a handler: all but
/// [`UpUnchecked`](crate::UpUnchecked).
///
/// # Safety
/// It does.
pub unsafe trait ExcludesItself {}

/// The first 32 bits of a lock.
fn first_word<L: LockType>(lock: &L) -> u32 {
    // SAFETY: by the contract of LockType the lock begins with atomics, aligned to 4 at least, and the first 32 bits
    // are an AtomicU32 in all of them named below.
    let word = unsafe { &*ptr::from_ref(lock).cast::<AtomicU32>() };
    word.load(Ordering::Relaxed)
}

fn nobody_waits(_word: u32) -> bool {
    false
}

fn queued_or_pending(word: u32) -> bool {
    let word = QWord::from_bits(word);
    word.pending() || word.tail() != Ok(None)
}

/// More than one ticket is out.
fn tickets_wait(word: u32) -> bool {
    (word >> 16).wrapping_sub(word) & 0xffff > 1
}

/// The tail names a waiter: neither free (0) nor held with nobody behind (1).
fn tail_names_a_waiter(word: u32) -> bool {
    word > 1
}

macro_rules! arch_spinlock {
    ($($lock:ident: $context:ident, $contended:path;)*) => {$(
        // SAFETY: the contract of RawLock knows no CPUs.
        unsafe impl ExcludesItself for $lock {}

        // SAFETY: the contract of RawLock.
        unsafe impl<P: $context> ArchSpinLock<P> for $lock {
            #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
            const INIT: Self = Self::new();
            const NAME: &'static str = <Self as LockType>::NAME;

            #[inline]
            fn acquire(&self, cx: &P) -> Result<(), Failure> {
                Ok(RawLock::acquire(self, cx)?)
            }

            #[inline]
            fn try_acquire(&self, cx: &P) -> bool {
                RawLock::try_acquire(self, cx)
            }

            #[inline]
            unsafe fn release(&self, cx: &P) -> Result<(), Corrupted> {
                // SAFETY: the caller owns the lock.
                unsafe { RawLock::release(self, cx) }
            }

            #[inline]
            fn is_locked(&self) -> bool {
                LockType::is_locked(self)
            }

            #[inline]
            fn is_contended(&self) -> bool {
                $contended(first_word(self))
            }
        }
    )*};
}

arch_spinlock! {
    RawTas: Context, nobody_waits;
    RawTicket: Context, tickets_wait;
    RawMcs: Context, tail_names_a_waiter;
    RawQSpin: Context, queued_or_pending;
    RawPvQSpin: PvOps, queued_or_pending;
}
