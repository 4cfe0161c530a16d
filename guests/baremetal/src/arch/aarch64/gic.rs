//! The interrupt controller, a GICv3: one distributor, a redistributor for each CPU, and each CPU's own interface to it.
//!
//! Without a second security state, as here, priorities are those that are written. A lower number is more urgent.

use core::arch::asm;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicDistributor, GicRedistributor, SgiTarget, SgiTargetGroup};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};
use arm_sysregs::el1::accessors::{write_icc_bpr1_el1, write_icc_ctlr_el1};
use arm_sysregs::el1::registers::{IccBpr1El1, IccCtlrEl1};

use crate::console;

/// Of QEMU's `virt`.
const DISTRIBUTOR: usize = 0x0800_0000;
const REDISTRIBUTORS: usize = 0x080a_0000;

const GROUP: InterruptGroup = InterruptGroup::Group1;

/// On the first CPU, once.
pub(super) fn prepare() {
    let Some(registers) = NonNull::new(with_exposed_provenance_mut::<Gicd>(DISTRIBUTOR)) else { return };
    // SAFETY: the distributor's registers, mapped as device memory; nobody else uses them, then or later.
    GicDistributor::new(unsafe { UniqueMmioPointer::new(registers) }).configure_default_settings();
}

/// On each CPU, with all interrupts masked: lets it have those of its own, each with its priority.
pub(super) fn open(number: usize, interrupts: impl IntoIterator<Item = (IntId, u8)>) {
    let first = with_exposed_provenance_mut::<GicrSgi>(REDISTRIBUTORS);
    let Some(registers) = NonNull::new(first.wrapping_add(number)) else { return };
    // SAFETY: the redistributor of the running CPU, mapped as device memory; that of another version, whose are larger, `virt`
    // does not have. Only this CPU uses it, and only here.
    let mut redistributor = GicRedistributor::new(unsafe { UniqueMmioPointer::new(registers) });
    // An error means that it is awake.
    let _ = redistributor.mark_core_awake();
    redistributor.configure_default_settings();
    for (id, priority) in interrupts {
        let done = redistributor
            .set_interrupt_priority(id, priority)
            .and_then(|()| redistributor.enable_interrupt(id, true));
        if let Err(error) = done {
            console::log(format_args!("cpu {number}: {error}"));
        }
    }
    // The end of an interrupt also deactivates it, the mask is no hint to the distributor; all implemented bits of a priority say who
    // interrupts whom.
    write_icc_ctlr_el1(IccCtlrEl1::empty());
    write_icc_bpr1_el1(IccBpr1El1::empty());
    GicCpuInterface::enable_group1(true);
}

/// The most urgent interrupt that is pending, which is in service from now on; `None` if it has gone away.
pub(super) fn acknowledge() -> Option<IntId> {
    let id = GicCpuInterface::get_and_acknowledge_interrupt(GROUP);
    barrier();
    id
}

/// It is handled.
pub(super) fn end(id: IntId) {
    barrier();
    GicCpuInterface::end_interrupt(id, GROUP);
}

/// Interrupts `cpu` by one of the first sixteen.
pub(super) fn send(cpu: usize, id: IntId) {
    // What was written before is visible to `cpu` when it comes.
    barrier();
    let target = SgiTarget::List { affinity3: 0, affinity2: 0, affinity1: 0, target_list: 1 << cpu };
    if let Err(error) = GicCpuInterface::send_sgi(id, target, SgiTargetGroup::CurrentGroup1) {
        console::log(format_args!("cpu {cpu} cannot be interrupted: {error}"));
    }
    // SAFETY: the write of the register above has taken effect when this is over.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Orders memory accesses with those of the controller's registers, which are not memory to the compiler, nor to the CPU.
fn barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
