//! The bare-metal kernel on real machines: emulated, and under a real KVM inside an emulated machine.
//!
//! ```text
//!   this machine                       this machine
//!   +-- QEMU, emulation (TCG) --+      +-- QEMU, emulation (TCG) -----------------------+
//!   |   crosslock-baremetal     |      |  L1: Linux, KVM on emulated SVM                |
//!   +---------------------------+      |  +-- crosslock-vmm --------------------------+ |
//!                                      |  |  L2: crosslock-baremetal, preempted vCPUs | |
//!                                      |  +-------------------------------------------+ |
//!                                      +------------------------------------------------+
//! ```

mod hosted;
mod machines;
mod outcome;
mod plan;
mod table;

pub use machines::{Machines, Place};
pub use outcome::{Outcome, Verdict};
pub use plan::{Effort, Expect, Step, plan};
pub use table::{cost, steps};
