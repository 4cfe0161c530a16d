//! Interrupts: their vectors, who handles them, and work that is put off until they are over.
//!
//! ```text
//!   task  <  softirq  <  hardirq Low  <  hardirq High  <  NMI        each can interrupt those before it
//! ```
//! A handler runs with interrupts off, unless it turns them on: then those of a higher priority class come through. When
//! the outermost one is over, softirqs that were raised run with interrupts on, as in Linux.

use core::arch::global_asm;

use crosslock_core::primitive::{AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::descriptors::Ist;
use crate::preempt::{self, Level};
use crate::{apic, cpu, exception};

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

/// Kinds of deferred work on each CPU.
pub(crate) const SOFTIRQS: usize = 2;

/// How often softirqs that raise each other are run before they wait for the next interrupt, as in Linux.
const SOFTIRQ_RESTARTS: usize = 10;

/// A place for a function; 0 where there is none.
#[derive(Debug)]
struct Handler(AtomicU64);

impl Handler {
    const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    fn set(&self, handler: Option<fn()>) {
        let address = handler.map_or(0, |handler| (handler as *const ()).expose_provenance());
        self.0.store(address as u64, Ordering::Release);
    }

    fn call(&self) {
        let address = self.0.load(Ordering::Acquire) as usize;
        if address != 0 {
            let handler = core::ptr::with_exposed_provenance::<()>(address);
            // SAFETY: `set` has put the address of a `fn()` there.
            let handler = unsafe { core::mem::transmute::<*const (), fn()>(handler) };
            handler();
        }
    }
}

static HANDLERS: [Handler; Irq::ALL.len()] = [const { Handler::none() }; Irq::ALL.len()];
static NMI: Handler = Handler::none();
static SOFTIRQ_HANDLERS: [Handler; SOFTIRQS] = [const { Handler::none() }; SOFTIRQS];

/// Has `handler` called at each `irq` on any CPU, in hardirq context.
pub(crate) fn on(irq: Irq, handler: Option<fn()>) {
    HANDLERS[irq as usize].set(handler);
}

/// The same for NMIs.
pub(crate) fn on_nmi(handler: Option<fn()>) {
    NMI.set(handler);
}

/// The same for deferred work of a kind.
pub(crate) fn on_softirq(kind: usize, handler: Option<fn()>) {
    SOFTIRQ_HANDLERS[kind].set(handler);
}

/// Has deferred work of this kind done on this CPU, when no interrupt and no bottom-half section is in the way. In a task,
/// that is at the end of the next interrupt.
pub(crate) fn raise_softirq(kind: usize) {
    cpu::this().softirqs.fetch_or(1 << kind, Ordering::Relaxed);
}

/// Does the deferred work that has been raised here. Interrupts are off, and are so afterwards.
pub(crate) fn run_softirqs() {
    let pending = &cpu::this().softirqs;
    for _ in 0..SOFTIRQ_RESTARTS {
        let raised = pending.swap(0, Ordering::Relaxed);
        if raised == 0 {
            return;
        }
        preempt::enter(Level::Softirq);
        interrupts::enable();
        for (kind, handler) in SOFTIRQ_HANDLERS.iter().enumerate() {
            if raised & 1 << kind != 0 {
                handler.call();
            }
        }
        interrupts::disable();
        preempt::leave(Level::Softirq);
    }
}

global_asm!(include_str!("entry.s"), irq = sym irq_entry, nmi = sym nmi_entry, exception = sym exception::entry);

extern "sysv64" fn irq_entry(index: u32) {
    let Some(&irq) = Irq::ALL.get(index as usize) else { return };
    preempt::enter(Level::Hardirq);
    if irq == Irq::Timer {
        cpu::add(&cpu::this().ticks, 1);
    }
    HANDLERS[irq as usize].call();
    // Spurious interrupts are not in service.
    if irq != Irq::Spurious {
        apic::end_of_interrupt();
    }
    preempt::leave(Level::Hardirq);
    if !preempt::in_interrupt() {
        run_softirqs();
    }
}

extern "sysv64" fn nmi_entry() {
    preempt::enter(Level::Nmi);
    NMI.call();
    preempt::leave(Level::Nmi);
}

unsafe extern "C" {
    static irq_entries: [u64; Irq::ALL.len()];
    static exception_entries: [u64; 32];
}

static mut IDT: InterruptDescriptorTable = InterruptDescriptorTable::new();

/// The data ports of the two interrupt controllers of the PC, from before there were APICs.
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];

/// On the first CPU, once: says where interrupts go, and that none comes but by the APIC.
pub(crate) fn prepare() {
    for port in PIC_MASKS {
        // SAFETY: masks all lines of a controller that nobody uses here.
        unsafe { Port::<u8>::new(port).write(!0) };
    }
    // SAFETY: the other CPUs do not run yet, and no interrupt is on.
    let idt = unsafe { &mut *(&raw mut IDT) };
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
}

/// On each CPU, after [`prepare`] and its descriptors.
pub(crate) fn load() {
    // SAFETY: `prepare` was the last to write it.
    let idt = unsafe { &*(&raw const IDT) };
    // SAFETY: it is static, and its handlers are there for good.
    unsafe { idt.load_unsafe() };
}
