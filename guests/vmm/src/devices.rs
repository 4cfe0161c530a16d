//! The devices: a serial port, and a port to exit by.

use std::convert::Infallible;
use std::io::{self, Stdout, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crosslock_baremetal::EXIT_PORT;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

const COM1: u16 = 0x3f8;
const COM1_LAST: u16 = COM1 + 7;

/// The guest polls.
#[derive(Clone, Copy, Debug)]
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// All devices, shared by the virtual CPUs.
#[derive(Clone, Debug)]
pub(crate) struct Devices(Arc<Mutex<Serial<NoInterrupt, NoEvents, Stdout>>>);

impl Devices {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Serial::new(NoInterrupt, io::stdout()))))
    }

    /// The guest writes to a port. A write to the exit port ends the process.
    pub(crate) fn write(&self, port: u16, data: &[u8]) {
        match (port, data) {
            (COM1..=COM1_LAST, &[byte]) => {
                let mut serial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                #[expect(clippy::cast_possible_truncation, reason = "below 8")]
                // Standard output is closed: nobody listens any more, and the status tells how it went.
                let _ = serial.write((port - COM1) as u8, byte);
            }
            (EXIT_PORT, data) => {
                let mut value = [0; 4];
                value.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
                let status = i32::from_le_bytes(value).wrapping_mul(2).wrapping_add(1);
                let mut serial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                // As above.
                let _ = serial.writer_mut().flush();
                std::process::exit(status);
            }
            // Nothing is there.
            _ => {}
        }
    }

    /// The guest reads from a port.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(!0);
        if let (COM1..=COM1_LAST, [byte]) = (port, data) {
            let mut serial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            #[expect(clippy::cast_possible_truncation, reason = "below 8")]
            let offset = (port - COM1) as u8;
            *byte = serial.read(offset);
        }
    }
}
