//! x86-64: a PC, or what KVM makes of one.

pub(crate) mod boot;
pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod hypervisor;
pub(crate) mod interrupts;
pub(crate) mod irq;
pub(crate) mod machine;
pub(crate) mod memory;

mod apic;
mod descriptors;
mod exception;
mod start_info;
