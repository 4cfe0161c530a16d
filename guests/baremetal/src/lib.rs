#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::std_instead_of_core)]

pub mod options;
pub mod report;

/// The port at which the kernel ends on x86-64, as QEMU's `isa-debug-exit,iobase=0xf4,iosize=4` has it.
pub const EXIT_PORT: u16 = 0xf4;

/// The status that all that was asked for has passed.
pub const PASSED: u32 = 0x10;

/// The status that something has failed.
pub const FAILED: u32 = 0x11;

/// QEMU's exit status when the kernel ends with `status`: `isa-debug-exit` makes that of it, and the kernel itself where it ends by
/// semihosting.
#[must_use]
pub const fn exit_status(status: u32) -> i32 {
    (2 * status + 1).cast_signed()
}
