//! What ends the kernel before its time.

use x86_64::registers::control::Cr2;

use crate::console::{self, Status};
use crate::cpu;

/// What an exception leaves on its stack.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Frame {
    number: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Called by the stubs.
pub(super) extern "sysv64" fn entry(frame: &Frame) -> ! {
    let Frame { number, error, rip, rsp, .. } = frame;
    let address = Cr2::read_raw();
    console::log(format_args!(
        "cpu {}: exception {number}, error {error:#x}, at {rip:#x}, stack {rsp:#x}, cr2 {address:#x}",
        cpu::number()
    ));
    console::exit(Status::Failed)
}
