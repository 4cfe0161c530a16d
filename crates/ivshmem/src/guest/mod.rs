//! The device in a guest, driven from user space: no kernel module.
//!
//! ```text
//!   /sys/bus/pci/devices/...     Device       found, bound to vfio-pci, memory
//!   /dev/vfio/N                  Driver       doorbell, and interrupts as eventfds
//!   /run/crosslock/ivshmem.sock  Agent        one process of the guest: hears vector 0, and hands on
//!                                Attachment   every other: memory, doorbell and bells, also without root
//! ```
//! `ivshmem-plain` has memory only: then there is no `Driver`, and nobody is rung.

mod agent;
mod attachment;
mod device;
mod doorbell;
mod driver;
mod error;
mod hand_over;
mod holder;
mod vfio;

pub use self::agent::{Agent, AgentOptions};
pub use self::attachment::Attachment;
pub use self::device::{Device, Kind};
pub use self::driver::Driver;
pub use self::error::DeviceError;
pub use self::hand_over::DEFAULT_SOCKET;
