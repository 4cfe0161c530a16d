//! The functions that compiled code calls for blocks of memory, which the C library has elsewhere.
//!
//! What they are made of is assembly, so that the compiler cannot make calls of the same functions out of it.

use core::ffi::{c_int, c_void};

use crate::arch::memory;

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's word.
    unsafe { memory::copy_upwards(to.cast(), from.cast(), bytes) };
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    if to.addr().wrapping_sub(from.addr()) >= bytes {
        // SAFETY: copied upwards, no byte is overwritten before it is read.
        unsafe { memory::copy_upwards(to.cast(), from.cast(), bytes) };
    } else {
        // SAFETY: nor is it here, downwards.
        unsafe { memory::copy_downwards(to.cast(), from.cast(), bytes) };
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut c_void, value: c_int, bytes: usize) -> *mut c_void {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "C takes it as an unsigned char"
    )]
    let value = value as u8;
    // SAFETY: the caller's word.
    unsafe { memory::fill(to.cast(), value, bytes) };
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const c_void, other: *const c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's word.
    unsafe { memory::compare(one.cast(), other.cast(), bytes) }
}

/// # Safety
/// As BSD's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's word.
    unsafe { memory::compare(one.cast(), other.cast(), bytes) }
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller's word: there is a NUL.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
