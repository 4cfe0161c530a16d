//! Each CPU's GDT and TSS, and the stacks on which interrupts begin.

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::cpu::MAX_CPUS;
use crate::once::Once;

/// Interrupts begin on stacks of their own, because the compiler's prebuilt `core` may use the red zone below the
/// stack pointer. Maskable ones move to below the red zone of the stack that they interrupt, so they can nest.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(super) enum Ist {
    Interrupt = 0,
    Nmi = 1,
    Exception = 2,
}

const STACKS: usize = 3;
const STACK_SIZE: usize = 32 << 10;

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Stack([u8; STACK_SIZE]);

/// The CPUs' stacks; the processor uses them, and nobody else.
#[repr(transparent)]
struct Stacks(UnsafeCell<[[Stack; STACKS]; MAX_CPUS]>);

// SAFETY: no code refers to what is inside, only to where it is.
unsafe impl Sync for Stacks {}

static IST_STACKS: Stacks = Stacks(UnsafeCell::new([[Stack([0; STACK_SIZE]); STACKS]; MAX_CPUS]));
static TSS: [Once<TaskStateSegment>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static GDT: [Once<GlobalDescriptorTable>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// Gives the running CPU its descriptors.
///
/// # Panics
/// It has them.
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one change, of which no part may be missing")]
pub(super) fn load(number: usize) {
    let stacks = IST_STACKS.0.get().cast::<[Stack; STACKS]>().wrapping_add(number).cast::<Stack>();
    // The TSS is packed, so its table is filled apart.
    let mut tss = TaskStateSegment::new();
    let mut tops = tss.interrupt_stack_table;
    for (stack, top) in (1..=STACKS).zip(&mut tops) {
        *top = VirtAddr::from_ptr(stacks.wrapping_add(stack));
    }
    tss.interrupt_stack_table = tops;
    TSS[number].set(tss);
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let tss = gdt.append(Descriptor::tss_segment(TSS[number].get()));
    GDT[number].set(gdt);
    GDT[number].get().load();
    // SAFETY: the selectors are those of the GDT just loaded: 64-bit code, data, and a TSS that stays where it is.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(tss);
    }
}
