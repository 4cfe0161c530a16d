//! Finds out that nothing goes on any more.

use crosslock_baremetal::report::{Check, Line, text};
use crosslock_core::primitive::{AtomicU64, Ordering};

use crate::console::{self, Status};
use crate::{clock, control, cpu, platform, smp};

/// When the first CPU must be through with what it does, by its clock; 0 where there is no limit.
static DEADLINE: AtomicU64 = AtomicU64::new(0);

/// From now on the first CPU has so many milliseconds; 0 is no limit. Its timer must run.
pub(crate) fn set(ms: u64) {
    let cycles = clock::khz().saturating_mul(ms);
    let deadline = if ms == 0 { 0 } else { clock::cycles().saturating_add(cycles) };
    DEADLINE.store(deadline, Ordering::Relaxed);
}

/// At each timer interrupt.
pub(crate) fn tick() {
    let deadline = DEADLINE.load(Ordering::Relaxed);
    if cpu::number() == 0 && deadline != 0 && clock::cycles() > deadline {
        set(0);
        console::log(format_args!("{}", smp::State));
        for (number, cpu) in cpu::all().iter().enumerate().filter(|(_, cpu)| cpu.is_online()) {
            console::log(format_args!(
                "cpu {number}: halted {}, {} nodes queued, preempt_count {}",
                cpu.halted.load(Ordering::Relaxed),
                platform::depth(number),
                cpu.state.preempt_count().get(),
            ));
        }
        let halted = cpu::all().iter().filter(|cpu| cpu.halted.load(Ordering::Relaxed) != 0).count();
        let passed = control::expects_stuck();
        console::report(&Line::Check(Check {
            name: text(format_args!("stuck")),
            lock: text(format_args!("")),
            passed,
            seen: text(format_args!("nothing goes on; {halted} CPUs are halted")),
        }));
        console::report(&Line::End { failures: u32::from(!passed) });
        console::exit(if passed { Status::Passed } else { Status::Failed });
    }
}
