//! How CPUs come to Rust: entry, paging, and the device tree, which says what the machine has to say.

use core::arch::global_asm;

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};

use super::irq;
use crate::cpu::MAX_CPUS;

/// Bytes of stack for each CPU: room for tests and for four interrupts on top of each other.
const STACK_SIZE: usize = 128 << 10;

/// Where RAM begins; QEMU leaves the device tree there when it loads an ELF file that does not.
const TREE: usize = 0x4000_0000;

global_asm!(
    include_str!("start.s"),
    max_cpus = const MAX_CPUS,
    stack_size = const STACK_SIZE,
    irqs_off = const irq::OFF,
    tree = const TREE,
    start = sym crate::start,
);

unsafe extern "C" {
    /// Where all CPUs start.
    static boot_entry: u8;
}

/// Where CPUs start.
pub(super) fn entry() -> u64 {
    (&raw const boot_entry).expose_provenance() as u64
}

/// The device tree, if there is one.
fn tree(at: usize) -> Option<Fdt<'static>> {
    // SAFETY: the tree is in RAM, below this kernel and mapped, and nobody writes there. Where there is none, the header says so.
    unsafe { Fdt::from_raw(core::ptr::with_exposed_provenance(at)) }.ok()
}

/// The command line, `bootargs`; `None` where there is no device tree, no such property, or it is no UTF-8.
///
/// # Safety
/// `told` is what `start.s` gave, and nobody has written over that memory.
pub(crate) unsafe fn command_line(told: usize) -> Option<&'static str> {
    tree(told)?.find_node("/chosen")?.property("bootargs")?.value_as().ok()
}

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduit {
    Hvc,
    Smc,
}

/// What the device tree says of that; QEMU's `virt` without EL2 has HVC.
pub(super) fn psci_conduit() -> Option<Conduit> {
    match tree(TREE)?.find_node("/psci")?.property("method")?.value_as().ok()? {
        "hvc" => Some(Conduit::Hvc),
        "smc" => Some(Conduit::Smc),
        _ => None,
    }
}
