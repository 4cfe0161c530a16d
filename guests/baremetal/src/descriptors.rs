//! Each CPU's GDT and TSS, and the stacks on which interrupts begin.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::cpu::MAX_CPUS;

/// Interrupts begin on stacks of their own, because the compiler's prebuilt `core` may use the red zone below the
/// stack pointer. Maskable ones move to below the red zone of the stack that they interrupt, so they can nest.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(crate) enum Ist {
    Interrupt = 0,
    Nmi = 1,
    Exception = 2,
}

const STACKS: usize = 3;
const STACK_SIZE: usize = 32 << 10;

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Stack([u8; STACK_SIZE]);

/// What one CPU has, beside those of the others.
#[repr(transparent)]
struct Own<T>(UnsafeCell<[T; MAX_CPUS]>);

// SAFETY: element `n` is used by CPU `n` alone.
unsafe impl<T> Sync for Own<T> {}

impl<T> Own<T> {
    /// # Safety
    /// Asked for once for each `number`, by that CPU.
    unsafe fn get(&'static self, number: usize) -> &'static mut T {
        // SAFETY: one reference for each element, by the caller's word; the index is checked first.
        let element = unsafe { &raw mut (*self.0.get())[number] };
        // SAFETY: likewise.
        unsafe { &mut *element }
    }
}

static IST_STACKS: Own<[Stack; STACKS]> = Own(UnsafeCell::new([[Stack([0; STACK_SIZE]); STACKS]; MAX_CPUS]));
static TSS: Own<MaybeUninit<TaskStateSegment>> = Own(UnsafeCell::new([MaybeUninit::uninit(); MAX_CPUS]));
static GDT: Own<MaybeUninit<GlobalDescriptorTable>> =
    Own(UnsafeCell::new([const { MaybeUninit::uninit() }; MAX_CPUS]));

/// Gives the running CPU its descriptors.
///
/// # Safety
/// Once on each CPU, with its own number, before its first interrupt.
pub(crate) unsafe fn load(number: usize) {
    // SAFETY: once on each CPU, by the caller's word.
    let (stacks, tss, gdt) = unsafe { (IST_STACKS.get(number), TSS.get(number), GDT.get(number)) };
    // The TSS is packed, so its table is filled apart.
    let mut filled = TaskStateSegment::new();
    let mut tops = filled.interrupt_stack_table;
    for (stack, top) in stacks.iter().zip(&mut tops) {
        *top = VirtAddr::from_ptr(stack.0.as_ptr_range().end);
    }
    filled.interrupt_stack_table = tops;
    let tss = tss.write(filled);
    let gdt = gdt.write(GlobalDescriptorTable::new());
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let tss = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selectors are those of the GDT just loaded: 64-bit code, data, and a TSS that stays where it is.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(tss);
    }
}
