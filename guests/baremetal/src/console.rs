//! The serial port: what a person reads, and what a program does.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use serde::Serialize;

use crate::arch::irq;
use crate::arch::machine::{self, Serial};
use crate::cpu;

/// Longest report, in bytes.
const MAX_REPORT: usize = 4096;

struct Console {
    /// 0, or the number of the CPU that writes, plus 1.
    busy: AtomicU32,
    serial: UnsafeCell<Option<Serial>>,
}

// SAFETY: the port is used by the CPU that `busy` names, and by nobody else; see `with`.
unsafe impl Sync for Console {}

static CONSOLE: Console = Console { busy: AtomicU32::new(0), serial: UnsafeCell::new(None) };

/// On the first CPU, once.
pub(crate) fn open() {
    with(|serial| *serial = Serial::open());
}

/// Apart from the locks under test, so that it can report on them. Interrupts are off meanwhile; an exception or an NMI that comes
/// in between has its words lost, and the harness sees the status all the same.
fn with(deed: impl FnOnce(&mut Option<Serial>)) {
    irq::without(|| {
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
        deed(unsafe { &mut *CONSOLE.serial.get() });
        CONSOLE.busy.store(0, Ordering::Release);
    });
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

/// A line for a person.
pub(crate) fn log(line: fmt::Arguments<'_>) {
    with(|serial| {
        if let Some(serial) = serial {
            // Writing to the port cannot fail; a formatter that does has said what it could.
            let _ = writeln!(serial, "{line}");
        }
    });
}

/// A line for a program: JSON.
pub(crate) fn report(report: &impl Serialize) {
    let mut line = [0; MAX_REPORT];
    match serde_json_core::to_slice(report, &mut line) {
        Ok(length) => with(|serial| {
            if let Some(serial) = serial {
                serial.send(&line[..length]);
                serial.send(b"\n");
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

/// Ends the machine.
pub(crate) fn exit(status: Status) -> ! {
    machine::exit(status as u32)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log(format_args!("cpu {}: {info}", cpu::number()));
    exit(Status::Failed)
}
