//! What differs from architecture to architecture, under the same names for each; nothing outside of this room asks which one it is.
//!
//! | | |
//! |---|---|
//! | `boot` | from the machine's entry to [`crate::start`]; the command line |
//! | `cpu` | the running CPU's number, and counters of its own |
//! | `irq` | interrupts off, on, and a wait for one |
//! | `interrupts` | where they come from and go to: timer, other CPUs, NMI |
//! | `clock` | a counter that goes at one rate |
//! | `hypervisor` | what runs below, and offers |
//! | `machine` | the other CPUs' start, the serial port, the end |
//! | `memory` | blocks of bytes |

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use self::aarch64::{boot, clock, cpu, hypervisor, interrupts, irq, machine, memory};
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86_64::{boot, clock, cpu, hypervisor, interrupts, irq, machine, memory};
