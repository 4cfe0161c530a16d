//! The kernel.

#![no_std]
#![no_main]
#![warn(clippy::std_instead_of_core)]

mod arch;
mod clock;
mod console;
mod control;
mod cpu;
mod interrupts;
mod load;
mod memory;
mod nesting;
mod once;
mod platform;
mod scene;
mod smp;
mod watchdog;

use crosslock_baremetal::options::{Kick, Lock, Options, Task};
use crosslock_baremetal::report::{Boot, Line, text};
use crosslock_core::select::{Choice, Features, Mode};
use once::Once;

use crate::arch::hypervisor::Hypervisor;
use crate::arch::{boot, irq};
use crate::console::Status;
use crate::platform::{SETTINGS, Settings, Wake};

static OPTIONS: Once<Options> = Once::new();

/// The algorithm behind queued locks, and its name.
static CHOICE: Once<(Choice, Lock)> = Once::new();

/// Where every CPU comes to, on a stack of its own, with interrupts off: the first with what the machine tells its kernel
/// (PVH's `start_info`, a device tree).
extern "C" fn start(told: usize, number: usize) -> ! {
    let cpu = cpu::adopt(number);
    let options = if number == 0 { boot_first(told) } else { OPTIONS.get() };
    arch::interrupts::open();
    SETTINGS.get().hypervisor.share_steal_time();
    irq::enable();
    if number != 0 {
        if number < options.cpus as usize {
            cpu.set_online();
        }
        smp::serve(number);
    }
    cpu.set_online();
    console::exit(main(options))
}

/// What is done once, before the others start.
fn boot_first(told: usize) -> &'static Options {
    console::open();
    arch::interrupts::prepare();
    // SAFETY: as the machine gave it; nothing has been written but this kernel's own data.
    let line = unsafe { boot::command_line(told) }.unwrap_or_default();
    console::log(format_args!("crosslock baremetal: {line}"));
    match Options::parse(line) {
        Ok(options) => OPTIONS.set(options),
        Err(error) => {
            console::log(format_args!("{error}"));
            console::exit(Status::Failed);
        }
    }
    let options = OPTIONS.get();
    let hypervisor = Hypervisor::find();
    let wake = match options.kick {
        _ if hypervisor.unhalts() => Wake::Hypercall,
        Kick::Ipi => Wake::Ipi,
        Kick::Auto => Wake::Never,
    };
    SETTINGS.set(Settings { hypervisor, wake, spin_threshold: options.spin });
    clock::gauge();
    options
}

fn main(options: &Options) -> Status {
    let cpus = smp::start(options.cpus as usize);
    let Settings { hypervisor, wake, .. } = SETTINGS.get();
    let features = Features {
        preemptible: hypervisor.is_there || options.kick == Kick::Ipi,
        unhalt: *wake != Wake::Never,
        realtime: hypervisor.is_realtime(),
        cpus: options.cpus,
        nopvspin: options.nopvspin,
    };
    let choice = features.choose();
    console::log(format_args!("{choice}"));
    let chosen = match choice.mode {
        Mode::Native => Lock::Queued,
        Mode::Paravirtual => Lock::Paravirtual,
        Mode::TestAndSet => Lock::Tas,
    };
    CHOICE.set((choice, chosen));
    console::report(&Line::Boot(Boot {
        hypervisor: text(format_args!("{}", hypervisor.name())),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        clock_khz: clock::khz(),
        unhalt: hypervisor.unhalts(),
        steal_time: hypervisor.has_steal_time(),
        chosen: text(format_args!("{chosen}")),
        reason: text(format_args!("{}", choice.reason)),
    }));
    if cpus != options.cpus as usize {
        console::log(format_args!("{cpus} CPUs have come up, not {}", options.cpus));
        return Status::Failed;
    }
    if options.lock == Some(Lock::Up) && cpus > 1 {
        console::log(format_args!("that lock is for one CPU"));
        return Status::Failed;
    }
    // The first CPU's timer is the watchdog's, too.
    arch::interrupts::start_timer(options.hz);
    let failures = match options.task {
        Task::Load => load::forms(options),
        Task::Nesting => nesting::run(options),
        Task::Throughput => load::throughput(options),
        Task::Kick => control::kick(false),
        Task::LostKick => control::kick(true),
        Task::WrongOrder => control::wrong_order(),
        Task::Deadlock => control::deadlock(),
        Task::Broken => load::broken(options),
    };
    console::report(&Line::End { failures });
    if failures == 0 { Status::Passed } else { Status::Failed }
}
