//! Blocks of bytes.

use core::arch::asm;

/// Copies from the first byte to the last.
///
/// # Safety
/// `bytes` bytes can be read there and written here, and none is written before it is read.
#[inline]
pub(crate) unsafe fn copy_upwards(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's word: sixteen at a time are read before they are written, so `to` below `from` is well, too.
    unsafe {
        asm!(
            "2: subs {n}, {n}, #16",
            "b.lo 3f",
            "ldp {a}, {b}, [{from}], #16",
            "stp {a}, {b}, [{to}], #16",
            "b 2b",
            "3: adds {n}, {n}, #16",
            "b.eq 5f",
            "4: ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{to}], #1",
            "subs {n}, {n}, #1",
            "b.ne 4b",
            "5:",
            n = inout(reg) bytes => _, from = inout(reg) from => _, to = inout(reg) to => _,
            a = out(reg) _, b = out(reg) _, options(nostack),
        );
    }
}

/// Copies from the last byte to the first.
///
/// # Safety
/// As above.
#[inline]
pub(crate) unsafe fn copy_downwards(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "2: cbz {n}, 3f",
            "sub {n}, {n}, #1",
            "ldrb {a:w}, [{from}, {n}]",
            "strb {a:w}, [{to}, {n}]",
            "b 2b",
            "3:",
            n = inout(reg) bytes => _, from = in(reg) from, to = in(reg) to, a = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Makes `bytes` bytes the same.
///
/// # Safety
/// They can be written.
#[inline]
pub(crate) unsafe fn fill(to: *mut u8, value: u8, bytes: usize) {
    let eight = u64::from_ne_bytes([value; 8]);
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "2: subs {n}, {n}, #16",
            "b.lo 3f",
            "stp {v}, {v}, [{to}], #16",
            "b 2b",
            "3: adds {n}, {n}, #16",
            "b.eq 5f",
            "4: strb {v:w}, [{to}], #1",
            "subs {n}, {n}, #1",
            "b.ne 4b",
            "5:",
            n = inout(reg) bytes => _, to = inout(reg) to => _, v = in(reg) eight, options(nostack),
        );
    }
}

/// The difference of the first two bytes that differ; 0 if there are none.
///
/// # Safety
/// `bytes` bytes can be read at both.
#[inline]
pub(crate) unsafe fn compare(one: *const u8, other: *const u8, bytes: usize) -> i32 {
    let difference: i32;
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "mov {d:w}, wzr",
            "2: cbz {n}, 3f",
            "ldrb {d:w}, [{one}], #1",
            "ldrb {t:w}, [{other}], #1",
            "sub {n}, {n}, #1",
            "subs {d:w}, {d:w}, {t:w}",
            "b.eq 2b",
            "3:",
            d = out(reg) difference, t = out(reg) _,
            n = inout(reg) bytes => _, one = inout(reg) one => _, other = inout(reg) other => _,
            options(nostack, readonly),
        );
    }
    difference
}
