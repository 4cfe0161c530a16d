//! Interrupts: their vectors, and the way to who handles them.
//!
//! ```text
//!   task  <  softirq  <  hardirq Low  <  hardirq High  <  NMI        each can interrupt those before it
//! ```
//! A handler runs with interrupts off, unless it turns them on: then those of a higher priority class come through. When
//! the outermost one is over, `crosslock_kernel` runs the softirqs that were raised, with interrupts on.

use core::arch::global_asm;

use crosslock_kernel::{hardirq, nmi};
use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::descriptors::Ist;
use crate::once::Once;
use crate::platform::Plain;
use crate::{apic, cpu, exception, scene, watchdog};

/// A maskable interrupt. The order is that of the stubs in `entry.s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Irq {
    /// For tests: of the lowest priority class.
    Low,
    /// For tests: comes through while `Low` is handled with interrupts on.
    High,
    /// Another CPU has work for this one.
    Call,
    /// The local APIC's timer.
    Timer,
    /// Ends a HLT.
    Kick,
    /// The APIC's own.
    Spurious,
}

impl Irq {
    const ALL: [Self; 6] = [Self::Low, Self::High, Self::Call, Self::Timer, Self::Kick, Self::Spurious];

    /// Its number; the upper four bits are its priority class.
    pub(crate) const fn vector(self) -> u8 {
        match self {
            Self::Low => 0x41,
            Self::Call => 0x51,
            Self::High => 0x81,
            Self::Timer => 0xd0,
            Self::Kick => 0xe0,
            Self::Spurious => 0xff,
        }
    }
}

global_asm!(include_str!("entry.s"), irq = sym irq_entry, nmi = sym nmi_entry, exception = sym exception::entry);

extern "sysv64" fn irq_entry(index: u32) {
    let Some(&irq) = Irq::ALL.get(index as usize) else { return };
    // SAFETY: the stub comes here with interrupts disabled.
    unsafe {
        hardirq::<Plain, _>(|| {
            if irq == Irq::Timer {
                cpu::add(&cpu::this().ticks, 1);
                watchdog::tick();
            }
            scene::now(|scene| scene.hardirq(irq));
            // The APIC's own interrupts are not in service.
            if irq != Irq::Spurious {
                apic::end_of_interrupt();
            }
        });
    }
}

extern "sysv64" fn nmi_entry() {
    // SAFETY: the stub comes here by a non-maskable interrupt.
    unsafe { nmi::<Plain, _>(|| scene::now(|scene| scene.nmi())) };
}

unsafe extern "C" {
    static irq_entries: [u64; Irq::ALL.len()];
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
    for (irq, &entry) in Irq::ALL.iter().zip(irqs) {
        set(irq.vector(), entry, Ist::Interrupt);
    }
    IDT.set(idt);
}

/// On each CPU, after [`prepare`] and its descriptors.
pub(crate) fn load() {
    IDT.get().load();
}
