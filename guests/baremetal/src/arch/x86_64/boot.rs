//! How CPUs come to Rust: the PVH entry, the trampoline of the others, paging, and what the hypervisor tells.

use core::arch::global_asm;

pub(crate) use super::start_info::command_line;

use crate::cpu::MAX_CPUS;

/// Bytes of stack for each CPU: room for tests and for four interrupts on top of each other.
const STACK_SIZE: usize = 128 << 10;

/// Where CPUs that get a SIPI start: below 1 MiB, at a page, out of the way of what the hypervisor left there.
pub(super) const TRAMPOLINE: usize = 0x8000;

global_asm!(
    include_str!("start.s"),
    max_cpus = const MAX_CPUS,
    stack_size = const STACK_SIZE,
    start = sym crate::start,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Copies the code that CPUs start with to where SIPI can point them.
pub(super) fn place_trampoline() {
    let (from, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: TRAMPOLINE is RAM below 1 MiB that nothing else uses, identity-mapped; the source is all between the two
    // symbols, and far above it.
    unsafe {
        core::ptr::copy_nonoverlapping(
            from,
            core::ptr::with_exposed_provenance_mut(TRAMPOLINE),
            end.addr() - from.addr(),
        );
    }
}
