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
//! (rust-lang/rust#128778), so every access to a lock word here is 32 bits wide. The one place where a
//! narrower store is worth a locked instruction, the uncontended release, is
//! [`AtomicU32::clear_low_byte_release`]: inline assembly per architecture, defined as an implementation
//! of `fetch_and(!0xff, Release)` on the whole word. The model checkers, ThreadSanitizer builds
//! (`--cfg no_asm`) and other architectures get that `fetch_and` itself.

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
                self.0.load(order)
            }

            #[inline]
            pub fn store(&self, value: $int, order: Ordering) {
                self.0.store(value, order);
            }

            #[inline]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
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
                self.0.compare_exchange(current, new, success, failure)
            }

            #[inline]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                self.0.fetch_add(value, order)
            }

            #[inline]
            pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                self.0.fetch_or(bits, order)
            }

            #[inline]
            pub fn fetch_and(&self, mask: $int, order: Ordering) -> $int {
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
}

#[cfg(any(loom, shuttle))]
impl AtomicU32 {
    /// `fetch_and(!0xff, Release)`; unlike the shipped one it tells what it found.
    pub fn clear_low_byte_release(&self) -> u32 {
        self.fetch_and(!0xff, model::order(model::Fault::ReleaseIsRelaxed, Ordering::Release))
    }
}

/// A memory fence, as [`core::sync::atomic::fence`].
#[inline]
pub fn fence(order: Ordering) {
    #[cfg(any(loom, shuttle))]
    if order == Ordering::SeqCst && model::active(model::Fault::NoFullFence) {
        return;
    }
    imp::fence(order);
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
    fn clearing_the_low_byte_leaves_the_others() {
        let word = AtomicU32::new(0xdead_beef);
        word.clear_low_byte_release();
        assert_eq!(word.load(Ordering::Relaxed), 0xdead_be00);
    }
}
