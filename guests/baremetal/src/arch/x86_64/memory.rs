//! Blocks of bytes, by the CPU's own string instructions.

use core::arch::asm;

/// Copies from the first byte to the last.
///
/// # Safety
/// `bytes` bytes can be read there and written here, and none is written before it is read.
#[inline]
pub(crate) unsafe fn copy_upwards(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's word; the direction flag is clear, as the ABI has it.
    unsafe {
        asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}

/// Copies from the last byte to the first.
///
/// # Safety
/// As above.
#[inline]
pub(crate) unsafe fn copy_downwards(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's word; downwards from the last byte, with the direction flag given back clear.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") bytes => _,
            inout("rdi") to.wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(bytes).wrapping_sub(1) => _, options(nostack));
    }
}

/// Makes `bytes` bytes the same.
///
/// # Safety
/// They can be written.
#[inline]
pub(crate) unsafe fn fill(to: *mut u8, value: u8, bytes: usize) {
    // SAFETY: the caller's word.
    unsafe {
        asm!("rep stosb", inout("rcx") bytes => _, inout("rdi") to => _, in("al") value,
            options(nostack, preserves_flags));
    }
}

/// The difference of the first two bytes that differ; 0 if there are none.
///
/// # Safety
/// `bytes` bytes can be read at both.
#[inline]
pub(crate) unsafe fn compare(one: *const u8, other: *const u8, bytes: usize) -> i32 {
    let difference: i32;
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
