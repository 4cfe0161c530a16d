//! The other CPUs' start, the serial port, and the end.

use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use smccc::{Hvc, Smc, psci};

use super::boot::{self, Conduit};
use super::irq;
use crate::cpu::MAX_CPUS;
use crate::{console, cpu};

/// Of QEMU's `virt`, with its clock in Hz.
const UART: usize = 0x0900_0000;
const UART_CLOCK_HZ: u32 = 24_000_000;

const BAUD_RATE: u32 = 115_200;

/// On the first CPU: has the others, which are off, come to [`crate::start`]. Their affinities are their numbers.
pub(crate) fn start_others(cpus: usize, _wait: impl Fn(u64)) {
    for number in 1..cpus as u64 {
        let started = match boot::psci_conduit() {
            Some(Conduit::Hvc) => psci::cpu_on::<Hvc>(number, boot::entry(), 0),
            Some(Conduit::Smc) => psci::cpu_on::<Smc>(number, boot::entry(), 0),
            None => Err(psci::error::Error::NotSupported),
        };
        if let Err(error) = started {
            console::log(format_args!("cpu {number} cannot be started: {error}"));
        }
    }
}

/// The serial port.
pub(crate) struct Serial(Uart<'static>);

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serial")
    }
}

impl Serial {
    /// On the first CPU, once.
    pub(crate) fn open() -> Option<Self> {
        let registers = NonNull::new(with_exposed_provenance_mut::<PL011Registers>(UART))?;
        // SAFETY: the registers of the serial port, mapped as device memory, which nobody else uses.
        let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
        let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
        uart.enable(line, BAUD_RATE, UART_CLOCK_HZ).ok()?;
        Some(Self(uart))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            while self.0.is_tx_fifo_full() {
                spin_hint();
            }
            self.0.write_word(byte);
        }
    }
}

/// CPUs that have been here: whoever comes twice has had an exception in between.
static ENDING: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Ends the machine, by semihosting, with the exit status that `isa-debug-exit` would make of `status`; where nobody listens to that,
/// the instruction is undefined, and PSCI does it without one.
pub(crate) fn exit(status: u32) -> ! {
    irq::mask();
    if ENDING[cpu::number()].swap(1, Ordering::Relaxed) == 0 {
        semihosting::process::exit(crosslock_baremetal::exit_status(status));
    }
    // It comes back only where it is refused; then there is nothing more to be done.
    let _ = match boot::psci_conduit() {
        Some(Conduit::Smc) => psci::system_off::<Smc>(),
        _ => psci::system_off::<Hvc>(),
    };
    loop {
        irq::wait_for_interrupt();
    }
}
