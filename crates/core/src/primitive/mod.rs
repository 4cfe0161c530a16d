//! Atomics, fences and spin hints: the only module that names them.
//!
//! The same source is compiled three times: on [`core::sync::atomic`] (what ships), on `loom`
//! (`--cfg loom`, every interleaving and every allowed stale read) and on `shuttle` (`--cfg shuttle`,
//! random schedules). A clippy lint refuses an atomic named anywhere else, so what is model-checked is
//! what ships.
//!
//! # Sub-word stores
//!
//! Racing atomics of different sizes on the same bytes are undefined behaviour in Rust
//! (rust-lang/rust#128778), so every access to a lock word here is 32 bits wide, with two exceptions in inline
//! assembly, each defined as an implementation of an operation on the whole word:
//!
//! - [`AtomicU32::clear_low_byte_release`] is a `fetch_and(!0xff, Release)`: a plain byte store saves the
//!   uncontended release its locked instruction.
//! - [`AtomicU32::set_low_byte_acquire`] is a compare-exchange loop that sets bits 0-7 where they are 0. On x86-64 it
//!   is one byte-wide compare-exchange, because a wider one right after that byte store cannot be
//!   forwarded from it: it waits until the store has left the store buffer (6.0 instead of 2.3 ns for a pair).
//!
//! The model checkers, ThreadSanitizer builds (`--cfg no_asm`) and other architectures get the definitions
//! themselves.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the facade itself")]

#[cfg(any(loom, shuttle))]
pub mod model;

use core::fmt;

#[cfg(not(any(loom, shuttle)))]
use core::sync::atomic as imp;
pub use core::sync::atomic::Ordering;
#[cfg(loom)]
use loom::sync::atomic as imp;
#[cfg(shuttle)]
use shuttle::sync::atomic as imp;

/// Declares a constructor that is `const` in what ships; the model checkers' atomics cannot be.
macro_rules! const_new {
    ($(#[$doc:meta])* $vis:vis fn new($($arg:ident: $ty:ty),*) -> Self $body:block) => {
        #[cfg(not(any(loom, shuttle)))]
        $(#[$doc])*
        #[must_use]
        $vis const fn new($($arg: $ty),*) -> Self $body

        #[cfg(any(loom, shuttle))]
        $(#[$doc])*
        #[must_use]
        $vis fn new($($arg: $ty),*) -> Self $body
    };
}
pub(crate) use const_new;

/// Where a model checker may end a thread's life.
#[inline(always)]
fn step() {
    #[cfg(any(loom, shuttle))]
    model::step();
}

macro_rules! atomic {
    ($name:ident, $int:ty, $imp:ident) => {
        /// An atomic integer with the layout of the plain one (model-checked builds excepted).
        ///
        /// Each method is the one of the same name in [`core::sync::atomic`].
        #[repr(transparent)]
        pub struct $name(imp::$imp);

        #[allow(missing_docs, reason = "each method is core's of the same name")]
        impl $name {
            const_new! {
                #[inline]
                pub fn new(value: $int) -> Self {
                        Self(imp::$imp::new(value))
                }
            }

            #[inline]
            pub fn load(&self, order: Ordering) -> $int {
                step();
                self.0.load(order)
            }

            #[inline]
            pub fn store(&self, value: $int, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            #[inline]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.swap(value, order)
            }

            /// # Errors
            /// The value found, where it is not `current`.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }

            #[inline]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_add(value, order)
            }

            #[inline]
            pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_or(bits, order)
            }

            #[inline]
            pub fn fetch_and(&self, mask: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_and(mask, order)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.load(Ordering::Relaxed), f)
            }
        }
    };
}

atomic!(AtomicU32, u32, AtomicU32);
atomic!(AtomicU64, u64, AtomicU64);

#[cfg(not(any(loom, shuttle)))]
impl AtomicU32 {
    /// The atomic of the standard library underneath, for system calls that want it (futex).
    #[inline]
    pub const fn as_core(&self) -> &imp::AtomicU32 {
        &self.0
    }

    /// `fetch_and(!0xff, Release)`, its result unused: gives up whatever bits 0-7 stand for, without a
    /// locked instruction where the architecture can store a byte with release semantics.
    #[inline]
    pub fn clear_low_byte_release(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(no_asm, miri))))]
        // SAFETY: the address is that of a live, 4-byte aligned word; only its lowest byte is written,
        // in one store, which on x86-64 has release semantics (TSO), as fetch_and(!0xff) would leave it.
        unsafe {
            core::arch::asm!("mov byte ptr [{0}], 0", in(reg) self.0.as_ptr(), options(nostack, preserves_flags));
        }
        #[cfg(all(target_arch = "aarch64", not(any(no_asm, miri))))]
        // SAFETY: as above; STLRB is the byte store with release semantics, and byte 0 is the lowest one
        // because only little-endian targets are supported.
        unsafe {
            core::arch::asm!("stlrb wzr, [{0}]", in(reg) self.0.as_ptr(), options(nostack, preserves_flags));
        }
        #[cfg(any(no_asm, miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
        self.fetch_and(!0xff, Ordering::Release);
    }

    /// Makes bits 0-7 a 1 if they are 0, whatever the other bits are, with Acquire; whether it did.
    #[inline]
    pub fn set_low_byte_acquire(&self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(any(no_asm, miri))))]
        {
            let done: u8;
            // SAFETY: the address is that of a live, 4-byte aligned word; only its lowest byte is compared and
            // written, in one locked instruction, as `set_low_byte_by_word` would.
            unsafe {
                core::arch::asm!(
                    "lock cmpxchg byte ptr [{word}], {one}",
                    "sete {done}",
                    word = in(reg) self.0.as_ptr(),
                    one = in(reg_byte) 1u8,
                    done = lateout(reg_byte) done,
                    inout("al") 0u8 => _,
                    options(nostack),
                );
            }
            done != 0
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(no_asm, miri)))))]
        self.set_low_byte_by_word().is_ok()
    }

    /// Whether bits 8-31 are 0: a `Relaxed` load of the word, that no store to bits 0-7 delays.
    #[inline]
    pub fn high_bytes_are_zero(&self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(any(no_asm, miri))))]
        {
            let high: u32;
            // SAFETY: the address is that of a live, 4-byte aligned word, of which bytes 1 to 3 are read; each
            // load is single-copy atomic, and what they give together the word had, or passed through.
            unsafe {
                core::arch::asm!(
                    "movzx {high:e}, word ptr [{word} + 2]",
                    "shl {high:e}, 8",
                    "mov {high:l}, byte ptr [{word} + 1]",
                    word = in(reg) self.0.as_ptr(),
                    high = out(reg) high,
                    options(nostack, readonly),
                );
            }
            high == 0
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(no_asm, miri)))))]
        {
            self.load(Ordering::Relaxed) & !0xff == 0
        }
    }
}

/// The definitions, where there is no assembly.
#[cfg(any(loom, shuttle))]
impl AtomicU32 {
    /// `fetch_and(!0xff, Release)`; unlike the shipped one it tells what it found.
    pub fn clear_low_byte_release(&self) -> u32 {
        self.fetch_and(!0xff, model::order(model::Fault::ReleaseIsRelaxed, Ordering::Release))
    }

    /// As the shipped one; unlike it, it tells what it found.
    ///
    /// # Errors
    /// The word, where bits 0-7 are not 0.
    pub fn set_low_byte_acquire(&self) -> Result<u32, u32> {
        self.set_low_byte_by_word()
    }

    /// As the shipped one: a load of its own.
    pub fn high_bytes_are_zero(&self) -> bool {
        self.load(Ordering::Relaxed) & !0xff == 0
    }
}

impl AtomicU32 {
    /// What `set_low_byte_acquire` is defined as; gives the word before, or the one whose low byte is not 0.
    #[allow(dead_code, reason = "there may be assembly for it")]
    fn set_low_byte_by_word(&self) -> Result<u32, u32> {
        let mut found = 0;
        while found & 0xff == 0 {
            match self.compare_exchange(found, found | 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(before) => return Ok(before),
                Err(changed) => found = changed,
            }
        }
        Err(found)
    }
}

/// As many words, all zero: `const` in what ships, as the constructors.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const fn zeroes<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

/// As the shipped one.
#[cfg(any(loom, shuttle))]
pub(crate) fn zeroes<const N: usize>() -> [AtomicU64; N] {
    core::array::from_fn(|_| AtomicU64::new(0))
}

/// A memory fence, as [`core::sync::atomic::fence`].
#[inline]
pub fn fence(order: Ordering) {
    step();
    #[cfg(any(loom, shuttle))]
    if order == Ordering::SeqCst && model::active(model::Fault::NoFullFence) {
        return;
    }
    imp::fence(order);
}

/// One half of an asymmetric barrier: costs nothing, and is a full barrier where another thread executes a heavy one
/// (`membarrier`) at that moment. The model checkers see a full barrier on both sides.
#[inline]
pub fn light_barrier() {
    #[cfg(not(any(loom, shuttle)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(any(loom, shuttle))]
    fence(Ordering::SeqCst);
}

/// A full barrier right after an exchange or another read-modify-write, which on x86-64 is one itself.
#[inline]
pub fn fence_after_exchange() {
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle, miri)))))]
    fence(Ordering::SeqCst);
}

/// The order in which a lock is given up, which the model checkers can be told to spoil.
#[inline]
pub(crate) fn release_order() -> Ordering {
    #[cfg(not(any(loom, shuttle)))]
    return Ordering::Release;
    #[cfg(any(loom, shuttle))]
    model::order(model::Fault::ReleaseIsRelaxed, Ordering::Release)
}

/// Keeps the compiler from moving memory accesses across, as seen by an interrupt or signal on this CPU.
#[inline]
pub fn signal_fence() {
    // The model checkers know no interrupts.
    #[cfg(not(any(loom, shuttle)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Tells the CPU (or the model checker) that this is a spin loop.
#[inline]
pub fn spin_hint() {
    #[cfg(not(any(loom, shuttle)))]
    core::hint::spin_loop();
    #[cfg(any(loom, shuttle))]
    model::spin();
}

#[cfg(target_endian = "big")]
compile_error!("crosslock's lock words are little-endian: big-endian targets are not supported");

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_low_byte_changes_and_the_others_do_not() {
        let word = AtomicU32::new(0xdead_beef);
        assert!(!word.set_low_byte_acquire());
        assert_eq!(word.load(Ordering::Relaxed), 0xdead_beef);
        word.clear_low_byte_release();
        assert_eq!(word.load(Ordering::Relaxed), 0xdead_be00);
        assert!(word.set_low_byte_acquire());
        assert_eq!(word.load(Ordering::Relaxed), 0xdead_be01);
        assert_eq!(AtomicU32::new(0).set_low_byte_by_word(), Ok(0));
        assert_eq!(AtomicU32::new(0x7f00).set_low_byte_by_word(), Ok(0x7f00));
        assert_eq!(AtomicU32::new(0x7f03).set_low_byte_by_word(), Err(0x7f03));
    }

    #[test]
    fn every_high_byte_is_looked_at() {
        for bit in 0..32 {
            assert_eq!(AtomicU32::new(1 << bit).high_bytes_are_zero(), bit < 8, "bit {bit}");
        }
    }
}
