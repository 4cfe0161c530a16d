//! The serial port: what a person reads, and what a program does.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use serde::Serialize;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

use crate::cpu;

const COM1: u16 = 0x3f8;

/// Longest report, in bytes.
const MAX_REPORT: usize = 4096;

struct Console {
    /// 0, or the number of the CPU that writes, plus 1.
    busy: AtomicU32,
    uart: UnsafeCell<Option<Uart16550<PioBackend>>>,
}

// SAFETY: the port is used by the CPU that `busy` names, and by nobody else; see `with`.
unsafe impl Sync for Console {}

static CONSOLE: Console = Console { busy: AtomicU32::new(0), uart: UnsafeCell::new(None) };

/// On the first CPU, once.
pub(crate) fn open() {
    with(|uart| {
        // SAFETY: the first serial port of a PC, which nobody else uses.
        if let Ok(mut port) = unsafe { Uart16550::new_port(COM1) } {
            // A port that is not as it should be shows as silence, which is a failure to whoever listens.
            if port.init(Config::default()).is_ok() {
                *uart = Some(port);
            }
        }
    });
}

/// Apart from the locks under test, so that it can report on them. Interrupts are off meanwhile; an exception or an NMI that comes
/// in between has its words lost, and the harness sees the status all the same.
fn with(deed: impl FnOnce(&mut Option<Uart16550<PioBackend>>)) {
    without_interrupts(|| {
        #[expect(clippy::cast_possible_truncation, reason = "below MAX_CPUS")]
        let me = cpu::number() as u32 + 1;
        // Acquire and Release: whoever has the port sees what the last one has done.
        while let Err(owner) = CONSOLE.busy.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
            if owner == me {
                return;
            }
            spin_hint();
        }
        // SAFETY: `busy` was 0, and names this CPU by its own doing: nobody else has the port, and this is no nested call.
        deed(unsafe { &mut *CONSOLE.uart.get() });
        CONSOLE.busy.store(0, Ordering::Release);
    });
}

struct Port16550<'a>(&'a mut Uart16550<PioBackend>);

impl Write for Port16550<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send_bytes_exact(text.as_bytes());
        Ok(())
    }
}

/// A line for a person.
pub(crate) fn log(line: fmt::Arguments<'_>) {
    with(|uart| {
        if let Some(uart) = uart {
            // Writing to the port cannot fail; a formatter that does has said what it could.
            let _ = writeln!(Port16550(uart), "{line}");
        }
    });
}

/// A line for a program: JSON.
pub(crate) fn report(report: &impl Serialize) {
    let mut line = [0; MAX_REPORT];
    match serde_json_core::to_slice(report, &mut line) {
        Ok(length) => with(|uart| {
            if let Some(uart) = uart {
                uart.send_bytes_exact(&line[..length]);
                uart.send_bytes_exact(b"\n");
            }
        }),
        Err(error) => log(format_args!("report lost: {error}")),
    }
}

/// How the kernel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Passed = crosslock_baremetal::PASSED,
    Failed = crosslock_baremetal::FAILED,
}

/// Ends the machine, by QEMU's `isa-debug-exit` or what stands for it.
pub(crate) fn exit(status: Status) -> ! {
    // SAFETY: a write there ends the machine, or does nothing.
    unsafe { Port::<u32>::new(crosslock_baremetal::EXIT_PORT).write(status as u32) };
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
