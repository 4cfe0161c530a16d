//! Interrupts: their numbers and priorities, and the way to who handles them.
//!
//! All but the timer's are software-generated ones, from other CPUs. The NMI is one of them that is more urgent than the mask of
//! [`irq`](super::irq) can keep away. While an interrupt is in service, the controller lets only more urgent ones through.

use core::arch::global_asm;

use arm_gic::IntId;
use arm_sysregs::el0::accessors::{
    read_cntfrq_el0, read_cntvct_el0, write_cntv_ctl_el0, write_cntv_cval_el0,
};
use arm_sysregs::el0::registers::{CntvCtlEl0, CntvCvalEl0};
use crosslock_core::primitive::{AtomicU64, Ordering};

use super::{exception, gic, irq};
use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::{self, Irq};

/// The virtual timer, of which every EL1 has one.
const TIMER: IntId = IntId::ppi(11);

const NMI: IntId = IntId::sgi(15);

/// More urgent than [`irq::OFF`].
const NMI_PRIORITY: u8 = 0x20;

const fn id(irq: Irq) -> IntId {
    match irq {
        Irq::Low => IntId::sgi(0),
        Irq::High => IntId::sgi(1),
        Irq::Call => IntId::sgi(2),
        Irq::Kick => IntId::sgi(3),
        Irq::Timer => TIMER,
    }
}

/// None below [`irq::OFF`], and in the order of x86-64's. A waiter in any handler but that of a kick is so woken by one.
const fn priority(irq: Irq) -> u8 {
    match irq {
        Irq::Low => 0xb0,
        Irq::Call => 0xa0,
        Irq::High => 0x80,
        Irq::Timer => 0x70,
        Irq::Kick => 0x60,
    }
}

global_asm!(include_str!("vectors.s"), irq = sym irq_entry, exception = sym exception::entry);

/// From the vectors, with PSTATE.I set; they keep the mask, and put it back.
extern "C" fn irq_entry() {
    // What is pending may have been masked or gone since.
    let Some(pending) = gic::acknowledge() else { return };
    irq::disable();
    if pending == NMI {
        // SAFETY: this came in spite of the mask, and nothing comes while PSTATE.I is set.
        unsafe { interrupts::handle_nmi() };
        gic::end(pending);
    } else if let Some(which) = Irq::ALL.into_iter().find(|&which| id(which) == pending) {
        if which == Irq::Timer {
            rearm();
        }
        irq::unmask();
        // SAFETY: interrupts were on, and are off now; only NMIs come.
        unsafe { interrupts::handle(which, || gic::end(pending)) };
        irq::mask();
    } else {
        // None that was enabled.
        gic::end(pending);
    }
}

/// On the first CPU, once.
pub(crate) fn prepare() {
    gic::prepare();
}

/// On each CPU, after [`prepare`], with interrupts off: from now on NMIs come, and the others as soon as they are enabled.
pub(crate) fn open() {
    let maskable = Irq::ALL.map(|irq| (id(irq), priority(irq)));
    gic::open(cpu::number(), maskable.into_iter().chain([(NMI, NMI_PRIORITY)]));
    irq::unmask();
}

/// Counts between two ticks of each CPU's timer; 0 while it is off.
static INTERVAL: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Interrupts this CPU `hz` times a second from now on; never, if 0.
pub(crate) fn start_timer(hz: u32) {
    irq::without(|| {
        let interval = u64::from(read_cntfrq_el0().clockfreq()).checked_div(u64::from(hz)).unwrap_or(0);
        INTERVAL[cpu::number()].store(interval, Ordering::Relaxed);
        rearm();
    });
}

/// With interrupts off: takes the last tick away, and asks for the next one.
fn rearm() {
    match INTERVAL[cpu::number()].load(Ordering::Relaxed) {
        0 => write_cntv_ctl_el0(CntvCtlEl0::empty()),
        interval => {
            let now = read_cntvct_el0().virtualcount();
            write_cntv_cval_el0(CntvCvalEl0::empty().with_comparevalue(now.wrapping_add(interval)));
            write_cntv_ctl_el0(CntvCtlEl0::ENABLE);
        }
    }
}

/// Interrupts `cpu`.
pub(crate) fn send(cpu: usize, irq: Irq) {
    gic::send(cpu, id(irq));
}

/// Interrupts `cpu`, whether it wants to be or not.
pub(crate) fn send_nmi(cpu: usize) {
    gic::send(cpu, NMI);
}
