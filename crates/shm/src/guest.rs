//! Joining a segment in a virtual machine: memory, doorbell and bells from the machine's agent.

use core::time::Duration;
use std::os::fd::OwnedFd;
use std::path::Path;

use crosslock_ivshmem::guest::Attachment;
use crosslock_ivshmem::{PeerId, Vector};

use crate::domain::DomainId;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::segment::Segment;

/// How long an agent may take to hand its bells out: somebody waits to sleep.
const PATIENCE: Duration = Duration::from_millis(200);

impl Options {
    /// Opens the segment in the memory of this virtual machine's ivshmem device, which the agent (`crosslock agent`) that listens at
    /// `socket` hands out. [`Options::directory`] and [`Options::mode`] must be as the agent's.
    ///
    /// ```no_run
    /// use crosslock::Options;
    /// use crosslock_ivshmem::guest::DEFAULT_SOCKET;
    ///
    /// let segment = Options::new().open_guest(DEFAULT_SOCKET)?;
    /// let count = segment.mutex("visits", 0_u64)?.lock()?.update(|n| { *n += 1; *n });
    /// println!("{count} visits, of all machines");
    /// # Ok::<(), crosslock::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] where there is no agent, or it has no device; as [`Options::open_device`].
    pub fn open_guest(&self, socket: impl AsRef<Path>) -> Result<Segment> {
        let socket = socket.as_ref().to_owned();
        let attachment =
            Attachment::connect(&socket).map_err(|source| Error::Device { source: Box::new(source) })?;
        let label = format!("the device of {}", socket.display());
        let segment = self.open_device_fd(attachment.memory(), &label, DomainId::Here)?;
        if let Some(me) = attachment.id() {
            segment.set_bells(move || bells(&socket));
            // The segment keeps the attachment, which holds the device.
            segment.set_doorbell(me.get(), move |peer, vector| {
                // A vector that a peer has made up, or a device that is gone: whoever sleeps looks by himself.
                let _ = attachment.ring(PeerId::new(peer), Vector::new(vector));
            })?;
        }
        Ok(segment)
    }
}

/// None where there is no agent at the moment.
fn bells(socket: &Path) -> Vec<OwnedFd> {
    // Its memory is not mapped, so it need not be kept.
    Attachment::connect_within(socket, PATIENCE)
        .map(|mut attachment| attachment.take_bells())
        .unwrap_or_default()
}
