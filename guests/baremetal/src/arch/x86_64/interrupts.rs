//! Interrupts: their vectors, and the way to who handles them.

use core::arch::global_asm;

use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::structures::idt::InterruptDescriptorTable;

pub(crate) use super::apic::{send, send_nmi, start_timer};
use super::descriptors::Ist;
use super::{apic, exception};
use crate::interrupts::{self, Irq};
use crate::once::Once;

/// The number of an interrupt; the upper four bits are its priority class.
pub(super) const fn vector(irq: Irq) -> u8 {
    match irq {
        Irq::Low => 0x41,
        Irq::Call => 0x51,
        Irq::High => 0x81,
        Irq::Timer => 0xd0,
        Irq::Kick => 0xe0,
    }
}

/// The APIC's own, where an interrupt went away before it was taken.
pub(super) const SPURIOUS: u8 = 0xff;

/// The stubs in `entry.s`: one for each interrupt in the order of [`Irq::ALL`], and the last for the spurious one.
const STUBS: usize = Irq::ALL.len() + 1;

global_asm!(include_str!("entry.s"), irq = sym irq_entry, nmi = sym nmi_entry, exception = sym exception::entry);

extern "sysv64" fn irq_entry(index: u32) {
    // A spurious one is not in service, so it is not ended.
    if let Some(&irq) = Irq::ALL.get(index as usize) {
        // SAFETY: the stub comes here with interrupts disabled.
        unsafe { interrupts::handle(irq, apic::end_of_interrupt) };
    }
}

extern "sysv64" fn nmi_entry() {
    // SAFETY: the stub comes here by a non-maskable interrupt.
    unsafe { interrupts::handle_nmi() };
}

unsafe extern "C" {
    static irq_entries: [u64; STUBS];
    static exception_entries: [u64; 32];
}

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// The data ports of the two interrupt controllers of the PC, from before there were APICs.
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];

/// On the first CPU, once: says where interrupts go, and that none comes but by the APIC.
pub(crate) fn prepare() {
    for port in PIC_MASKS {
        // SAFETY: masks all lines of a controller that nobody uses here.
        unsafe { Port::<u8>::new(port).write(!0) };
    }
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: constant tables of the assembly.
    let (exceptions, irqs) = unsafe { (&exception_entries, &irq_entries) };
    let mut set = |vector: u8, entry: u64, ist: Ist| {
        let entry = VirtAddr::new(entry);
        macro_rules! point {
            ($gate:expr) => {{
                // SAFETY: the address is that of a stub that keeps all registers and ends with iretq, or does not end.
                let options = unsafe { $gate.set_handler_addr(entry) };
                // SAFETY: `descriptors` has filled that entry of each CPU's TSS.
                unsafe { options.set_stack_index(ist as u16) };
            }};
        }
        match vector {
            0 => point!(idt.divide_error),
            1 => point!(idt.debug),
            2 => point!(idt.non_maskable_interrupt),
            3 => point!(idt.breakpoint),
            4 => point!(idt.overflow),
            5 => point!(idt.bound_range_exceeded),
            6 => point!(idt.invalid_opcode),
            7 => point!(idt.device_not_available),
            8 => point!(idt.double_fault),
            10 => point!(idt.invalid_tss),
            11 => point!(idt.segment_not_present),
            12 => point!(idt.stack_segment_fault),
            13 => point!(idt.general_protection_fault),
            14 => point!(idt.page_fault),
            16 => point!(idt.x87_floating_point),
            17 => point!(idt.alignment_check),
            18 => point!(idt.machine_check),
            19 => point!(idt.simd_floating_point),
            20 => point!(idt.virtualization),
            21 => point!(idt.cp_protection_exception),
            28 => point!(idt.hv_injection_exception),
            29 => point!(idt.vmm_communication_exception),
            30 => point!(idt.security_exception),
            32.. => point!(idt[vector]),
            _ => {}
        }
    };
    for (vector, &entry) in (0..).zip(exceptions) {
        set(vector, entry, if vector == 2 { Ist::Nmi } else { Ist::Exception });
    }
    for (vector, &entry) in Irq::ALL.into_iter().map(vector).chain([SPURIOUS]).zip(irqs) {
        set(vector, entry, Ist::Interrupt);
    }
    IDT.set(idt);
    apic::choose();
}

/// On each CPU, after [`prepare`]: from now on they come, as soon as they are enabled.
pub(crate) fn open() {
    IDT.get().load();
    apic::enable();
}
