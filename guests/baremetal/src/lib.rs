#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::std_instead_of_core)]

pub mod options;
pub mod report;

/// The port at which the kernel ends, as QEMU's `isa-debug-exit,iobase=0xf4,iosize=4` has it: QEMU's exit status then is
/// twice the value written, plus 1.
pub const EXIT_PORT: u16 = 0xf4;

/// Written to the exit port when all that was asked for has passed.
pub const PASSED: u32 = 0x10;

/// Written to the exit port when something has failed.
pub const FAILED: u32 = 0x11;
