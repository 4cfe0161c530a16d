//! What ends the kernel before its time.

use arm_sysregs::el1::accessors::{read_elr_el1, read_esr_el1, read_far_el1};

use crate::console::{self, Status};
use crate::cpu;

/// Called by the vectors: the number of the vector, and the stack.
pub(super) extern "C" fn entry(vector: usize, stack: usize) -> ! {
    let [syndrome, at, address] = [read_esr_el1().bits(), read_elr_el1().bits(), read_far_el1().bits()];
    console::log(format_args!(
        "cpu {}: exception at vector {vector}, esr {syndrome:#x}, at {at:#x}, stack {stack:#x}, far {address:#x}",
        cpu::number()
    ));
    console::exit(Status::Failed)
}
