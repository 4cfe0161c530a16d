//! The other CPUs' start, the serial port, and the end.

use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::port::Port;

use super::{apic, boot, irq};

const COM1: u16 = 0x3f8;

/// On the first CPU: has the others come to [`crate::start`]; their APIC ids are their numbers. `wait` waits for so many
/// microseconds.
pub(crate) fn start_others(_cpus: usize, wait: impl Fn(u64)) {
    boot::place_trampoline();
    apic::start_others(boot::TRAMPOLINE, wait);
}

/// The first serial port.
#[derive(Debug)]
pub(crate) struct Serial(Uart16550<PioBackend>);

impl Serial {
    /// On the first CPU, once. `None` if the port is not as it should be; then there is silence, which is a failure to whoever
    /// listens.
    pub(crate) fn open() -> Option<Self> {
        // SAFETY: the first serial port of a PC, which nobody else uses.
        let mut port = unsafe { Uart16550::new_port(COM1) }.ok()?;
        port.init(Config::default()).ok()?;
        Some(Self(port))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.send_bytes_exact(bytes);
    }
}

/// Ends the machine, by QEMU's `isa-debug-exit` or what stands for it.
pub(crate) fn exit(status: u32) -> ! {
    // SAFETY: a write there ends the machine, or does nothing.
    unsafe { Port::<u32>::new(crosslock_baremetal::EXIT_PORT).write(status) };
    loop {
        irq::disable();
        irq::wait();
    }
}
