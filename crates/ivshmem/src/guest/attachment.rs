//! A process that uses the device, which an agent has handed to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::doorbell::Doorbell;
use super::driver::ring;
use super::error::DeviceError;
use super::hand_over::{Arriving, Goods};
use super::vfio::OpenDevice;
use crate::error::{Error, Result, label};
use crate::id::{PeerId, Vector};
use crate::line::Line;
use crate::memory::Memory;

/// How long an agent may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Memory and doorbell of this machine's device, from its [`Agent`](super::Agent), who is needed no more.
///
/// Keep it as long as the memory is mapped: it holds the device open, and when nobody does any more, the kernel switches the memory off for
/// a moment, also for those who have it mapped.
///
/// ```no_run
/// use crosslock_ivshmem::guest::{Attachment, DEFAULT_SOCKET};
/// use crosslock_ivshmem::{PeerId, Vector};
///
/// let attachment = Attachment::connect(DEFAULT_SOCKET)?;
/// println!("peer {:?}, {} bytes", attachment.id(), attachment.memory_size());
/// attachment.ring(PeerId::SERVER, Vector::new(0))?;
/// # Ok::<(), crosslock_ivshmem::Error>(())
/// ```
#[derive(Debug)]
pub struct Attachment {
    /// Before the doorbell, which holds the device.
    memory: Memory,
    doorbell: Option<Ringer>,
}

/// The doorbell, and whom one rings with it.
#[derive(Debug)]
struct Ringer {
    id: PeerId,
    vectors: u16,
    doorbell: Doorbell,
}

impl Attachment {
    /// Has the device from the agent at `socket`, usually [`DEFAULT_SOCKET`](super::DEFAULT_SOCKET), who may take ten seconds.
    ///
    /// # Errors
    /// [`Error::NoServer`]; [`DeviceError::NoAnswer`], [`DeviceError::HungUp`], [`DeviceError::NotAnAgent`];
    /// [`DeviceError::NotADevice`], [`Error::UnfitMemory`] where what was handed over is something else; [`Error::Io`].
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self> {
        Self::connect_within(socket, TIMEOUT)
    }

    /// Has the device from the agent at `socket`, who may take so long.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_within(socket: impl AsRef<Path>, timeout: Duration) -> Result<Self> {
        Self::new(receive(socket.as_ref(), timeout)?)
    }

    /// Of what somebody has given, which may be something else.
    pub(super) fn new(goods: Goods<OwnedFd>) -> Result<Self> {
        let memory = Memory::new(goods.memory)?;
        if memory.size != goods.memory_size {
            let reason = "it must be as large as the agent says";
            let found = format!("{} bytes, not {}", memory.size, goods.memory_size).into();
            return Err(Error::UnfitMemory { reason, found });
        }
        let doorbell = goods.doorbell.map(|bell| -> Result<Ringer> {
            let device = OpenDevice::received(bell.device)
                .map_err(|found| DeviceError::NotADevice { found: found.into() })?;
            let doorbell = Doorbell::new(device).map_err(Error::io("find the doorbell"))?;
            Ok(Ringer { id: bell.id, vectors: bell.vectors, doorbell })
        });
        Ok(Self { memory, doorbell: doorbell.transpose()? })
    }

    /// Which peer this machine is; none where its device has no doorbell.
    #[must_use]
    pub fn id(&self) -> Option<PeerId> {
        self.doorbell.as_ref().map(|ringer| ringer.id)
    }

    /// How many vectors each peer has; 0 where the device has no doorbell.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.doorbell.as_ref().map_or(0, |ringer| ringer.vectors)
    }

    /// The memory, to be mapped: the resource file of the device.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.fd.as_fd()
    }

    /// How large the memory is, in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> u64 {
        self.memory.size
    }

    /// Whether ringing is one store, or else a system call: where the registers share their page with something else.
    #[must_use]
    pub fn rings_by_a_store(&self) -> bool {
        self.doorbell.as_ref().is_some_and(|ringer| ringer.doorbell.is_mapped())
    }

    /// Rings a vector of a peer. That there is no such peer is not said: the device ignores it.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`], where there is no doorbell for every vector; [`Error::Io`] where the device does not answer any more.
    pub fn ring(&self, peer: PeerId, vector: Vector) -> Result<()> {
        match &self.doorbell {
            Some(ringer) => ring(&ringer.doorbell, ringer.vectors, peer, vector),
            None => Err(Error::NoSuchVector { peer, vector, vectors: 0 }),
        }
    }
}

fn receive(path: &Path, timeout: Duration) -> Result<Goods<OwnedFd>> {
    let start = Instant::now();
    let no_answer = || {
        let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        DeviceError::NoAnswer { socket: label(path), waited_ms }
    };
    let mut line = Line::open(path, timeout)?.ok_or_else(no_answer)?;
    let mut listener = Arriving::Start;
    loop {
        let heard = match line.listen() {
            Err(Error::ServerGone) => return Err(DeviceError::HungUp { socket: label(path) }.into()),
            heard => heard?,
        };
        let Some((value, fd)) = heard else {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(no_answer().into());
            }
            line.wait(left)?;
            continue;
        };
        let heard = listener.hear(value, fd).map_err(|nonsense| DeviceError::NotAnAgent {
            socket: label(path),
            what: nonsense.what,
            found: nonsense.found,
        })?;
        match heard {
            Ok(next) => listener = next,
            Err(goods) => return Ok(goods),
        }
    }
}
