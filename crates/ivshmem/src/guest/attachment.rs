//! A process that uses the device, which an agent has handed to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::doorbell::Doorbell;
use super::driver::ring;
use super::error::DeviceError;
use super::hand_over::{Arriving, Goods};
use super::vfio::OpenDevice;
use crate::bell::is_eventfd;
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
    bells: Vec<OwnedFd>,
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
    /// [`DeviceError::NotADevice`], [`DeviceError::NotAnEventfd`], [`Error::UnfitMemory`] where what was handed over is something else;
    /// [`Error::Io`].
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
        let mut bells = Vec::new();
        let doorbell = goods.doorbell.map(|bell| -> Result<Ringer> {
            for (vector, eventfd) in (1..).map(Vector::new).zip(&bell.bells) {
                if !is_eventfd(eventfd) {
                    return Err(DeviceError::NotAnEventfd { vector }.into());
                }
            }
            bells = bell.bells;
            let device = OpenDevice::received(bell.device)
                .map_err(|found| DeviceError::NotADevice { found: found.into() })?;
            let doorbell = Doorbell::new(device).map_err(Error::io("find the doorbell"))?;
            Ok(Ringer { id: bell.id, vectors: bell.vectors, doorbell })
        });
        let doorbell = doorbell.transpose()?;
        Ok(Self { memory, bells, doorbell })
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

    /// What the interrupts of this machine write to: an eventfd for each vector from 1, at index `vector - 1`, but at most 64, for the bells of
    /// vectors above 64 are not handed on. Empty where the device has no doorbell, or one vector.
    ///
    /// **Nobody reads them**: all processes of this machine have the same eventfds, and a read takes the ring away from all others. A
    /// thread that sleeps has an epoll instance of its own, with the eventfd added as `EPOLLIN | EPOLLET` (and not `EPOLLEXCLUSIVE`):
    /// every ring since its last `epoll_wait` ends the next one, and rings that come before it are one. The first ends at once, for the
    /// agent has rung every bell at its start. The counts only grow, which is no matter: 2^64 rings do not happen.
    ///
    /// The bells go on ringing when the agent dies, as long as anybody has the device. **A new agent makes new ones**, and
    /// these stay silent from then on: who sees that there is another agent connects again. `docs/ivshmem.md`, "In a guest".
    ///
    /// ```no_run
    /// use crosslock_ivshmem::guest::{Attachment, DEFAULT_SOCKET};
    /// use rustix::buffer::spare_capacity;
    /// use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create, wait};
    ///
    /// let attachment = Attachment::connect(DEFAULT_SOCKET)?;
    /// // Of this thread alone.
    /// let epoll = create(CreateFlags::CLOEXEC)?;
    /// let bell = attachment.bells().first().expect("the device has two vectors");
    /// add(&epoll, bell, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
    /// let is_free = || true; // what is in the memory
    /// while !is_free() {
    ///     let mut events = Vec::with_capacity(1);
    ///     wait(&epoll, spare_capacity(&mut events), None)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bells(&self) -> &[OwnedFd] {
        &self.bells
    }

    /// Gives the [`bells`](Self::bells) away; then there are none here any more. They hold nothing but themselves: keep the attachment
    /// as long as the memory is mapped.
    #[must_use]
    pub fn take_bells(&mut self) -> Vec<OwnedFd> {
        core::mem::take(&mut self.bells)
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
