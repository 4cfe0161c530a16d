//! The functions that compiled code calls for blocks of memory, which the C library has elsewhere.
//!
//! Strings of the CPU's own instructions, so that the compiler cannot make calls of the same functions out of them.

use core::arch::asm;
use core::ffi::{c_int, c_void};

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's word; the direction flag is clear, as the ABI has it.
    unsafe {
        asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    if to.addr().wrapping_sub(from.addr()) >= bytes {
        // SAFETY: copied upwards, no byte is overwritten before it is read.
        return unsafe { memcpy(to, from, bytes) };
    }
    // SAFETY: the caller's word; downwards from the last byte, with the direction flag given back clear.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") bytes => _,
            inout("rdi") to.cast::<u8>().wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") from.cast::<u8>().wrapping_add(bytes).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut c_void, value: c_int, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's word.
    unsafe {
        asm!("rep stosb", inout("rcx") bytes => _, inout("rdi") to => _, in("eax") value,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const c_void, other: *const c_void, bytes: usize) -> c_int {
    let difference: c_int;
    // SAFETY: the caller's word. The first two bytes that differ are behind the pointers when it stops; where there are no
    // bytes at all, the flags say equal.
    unsafe {
        asm!(
            "xor {d:e}, {d:e}",
            "repe cmpsb",
            "je 2f",
            "movzx {d:e}, byte ptr [rdi - 1]",
            "movzx {t:e}, byte ptr [rsi - 1]",
            "sub {d:e}, {t:e}",
            "2:",
            d = out(reg) difference, t = out(reg) _,
            inout("rcx") bytes => _, inout("rdi") one => _, inout("rsi") other => _,
            options(nostack, readonly),
        );
    }
    difference
}

/// # Safety
/// As BSD's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's word.
    unsafe { memcmp(one, other, bytes) }
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
