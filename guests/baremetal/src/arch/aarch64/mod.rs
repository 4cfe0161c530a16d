//! aarch64: QEMU's machine `virt` with a GICv3, at EL1. Where its devices are is fixed by QEMU (hw/arm/virt.c).

pub(crate) mod boot;
pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod hypervisor;
pub(crate) mod interrupts;
pub(crate) mod irq;
pub(crate) mod machine;
pub(crate) mod memory;

mod exception;
mod gic;
