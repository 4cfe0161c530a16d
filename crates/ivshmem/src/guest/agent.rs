//! The one process of a machine that has the interrupts, and hands the device to the others.

use core::ops::ControlFlow;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::attachment::Attachment;
use super::device::{Device, Kind};
use super::driver::Driver;
use super::hand_over::{Bell as GivenBell, DEFAULT_SOCKET, Goods, MAX_BELLS};
use crate::error::{Error, Result};
use crate::events::{Events, Source};
use crate::id::{PeerId, Vector};
use crate::listener::{Knock, Listener};
use crate::stopper::Stopper;

/// How many newcomers are served before the interrupts are heard again.
const NEWCOMERS: usize = 16;

/// The vector that the agent hears. The others' eventfds are those of the attachments, and are never read.
const OWN: Vector = Vector::new(0);

/// How an agent is to be; after [`std::fs::OpenOptions`].
///
/// ```
/// use crosslock_ivshmem::guest::AgentOptions;
///
/// let options = AgentOptions::new().socket("/run/crosslock/second.sock").mode(0o660);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    socket: PathBuf,
    mode: u32,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentOptions {
    /// At [`DEFAULT_SOCKET`], mode 0600.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: DEFAULT_SOCKET.into(), mode: 0o600 }
    }

    /// Where it listens. The directory is made, for all to enter and for root to change, if it is not there.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }

    /// The permissions of the socket, whatever the umask; only the lowest nine bits count. Who may write to it may use the memory and
    /// the device, and is trusted by all others of this machine who do: `docs/ivshmem.md`.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Takes the device, and the name: of two agents one is refused; that of a dead one is taken over, and the
    /// device from those who hold it. Processes can connect from now on, and are served by [`Agent::turn`]. Only root may.
    ///
    /// # Errors
    /// [`Error::Device`], with all that can be wrong with a device; [`Error::InUse`], [`Error::NotASocket`], [`Error::Busy`];
    /// [`Error::Io`].
    pub fn open(&self, device: &Device) -> Result<Agent> {
        make_directory(&self.socket).map_err(Error::io("make the directory of the socket"))?;
        // The name first: nobody takes the interrupts of an agent that lives.
        let listener = Listener::create(&self.socket, self.mode)?;
        let driver = match device.kind() {
            Kind::Doorbell => Some(Driver::open(device)?),
            Kind::Plain => {
                device.enable()?;
                None
            }
        };
        Agent::new(listener, driver, device.open_memory()?, device.memory_size())
    }
}

/// Hears vector 0 of this machine's device, and hands memory, doorbell and the eventfds of the other vectors to the processes that
/// [connect](super::Attachment::connect).
///
/// They need it no more then. When it is killed they go on, and only vector 0 is not heard, until the next one takes its place. That one
/// has new eventfds: who sleeps on the [bells](super::Attachment::bells) of the old one must connect again.
///
/// ```no_run
/// use crosslock_ivshmem::guest::{Agent, Device};
///
/// let mut agent = Agent::open(&Device::find()?)?;
/// agent.run(|vector| println!("vector {vector} was rung"))?;
/// # Ok::<(), crosslock_ivshmem::Error>(())
/// ```
#[derive(Debug)]
pub struct Agent {
    listener: Listener,
    events: Events,
    stopper: Stopper,
    /// Before the driver, which is the last to go.
    memory: OwnedFd,
    memory_size: u64,
    driver: Option<Driver>,
}

impl Agent {
    /// [`AgentOptions::open`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn open(device: &Device) -> Result<Self> {
        AgentOptions::new().open(device)
    }

    fn new(listener: Listener, driver: Option<Driver>, memory: OwnedFd, memory_size: u64) -> Result<Self> {
        let events = Events::new().map_err(Error::io("make an epoll instance"))?;
        let stopper = Stopper::new().map_err(Error::io("make an eventfd"))?;
        let watch = || -> Result<(), Errno> {
            if let Some(bell) = driver.as_ref().and_then(|driver| driver.bells().first()) {
                events.watch(bell, Source::Bell(OWN), EventFlags::IN)?;
            }
            events.watch(&stopper, Source::Stop, EventFlags::IN)?;
            listener.watch(&events)
        };
        watch().map_err(Error::io("watch for events"))?;
        Ok(Self { listener, events, stopper, memory, memory_size, driver })
    }

    /// Which peer this machine is; none where the device has no doorbell.
    #[must_use]
    pub fn id(&self) -> Option<PeerId> {
        self.driver.as_ref().map(Driver::id)
    }

    /// The device in the hands of this process; none where it has no doorbell. To [wait](Driver::wait) there for a vector but 0 would
    /// take rings away from the attachments.
    #[must_use]
    pub const fn driver(&self) -> Option<&Driver> {
        self.driver.as_ref()
    }

    /// The same for other threads of this process, which ring while this one waits.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no room for descriptors.
    pub fn attach(&self) -> Result<Attachment> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(Error::io("copy a descriptor"));
        let goods = self.goods();
        let doorbell = match goods.doorbell {
            Some(GivenBell { id, vectors, device, bells }) => {
                let bells = bells.into_iter().map(own).collect::<Result<_>>()?;
                Some(GivenBell { id, vectors, device: own(device)?, bells })
            }
            None => None,
        };
        Attachment::new(Goods { memory: own(goods.memory)?, memory_size: goods.memory_size, doorbell })
    }

    /// The memory, to be mapped.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// How large the memory is, in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// What ends it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Takes turns until it is [stopped](Stopper::stop).
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, mut rung: impl FnMut(Vector)) -> Result<()> {
        while self.turn(&mut rung, None)?.is_continue() {}
        Ok(())
    }

    /// Waits for at most `timeout` for something to do, and does it: calls `rung` with vector 0 if that was rung, once however often it
    /// was, then hands the device to newcomers. It may come back earlier with nothing done. The first turn says that it
    /// was rung, for what was before it went nowhere. Other vectors are for the [attachments](super::Attachment::bells).
    ///
    /// Nothing that a newcomer does delays it: all that there is to say is said at once, or never. For those who have a loop of
    /// their own: the agent's descriptor is readable when there is something.
    ///
    /// Gives `Break` when it was stopped.
    ///
    /// # Errors
    /// [`Error::Io`] where the operating system does not let it wait.
    pub fn turn(
        &mut self,
        mut rung: impl FnMut(Vector),
        timeout: Option<Duration>,
    ) -> Result<ControlFlow<()>> {
        let opens = self.listener.opens().map(|opens| opens.saturating_duration_since(Instant::now()));
        let timeout = [timeout, opens].into_iter().flatten().min();
        let batch = self.events.wait(timeout).map_err(Error::io("wait for events"))?;
        let (mut knocked, mut stopped) = (false, false);
        for (source, _) in batch {
            match source {
                Source::Bell(vector) => match self.take(vector) {
                    Ok(true) => rung(vector),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%vector, %error, "cannot take a ring"),
                },
                Source::Door => knocked = true,
                Source::Stop => stopped = true,
                // An agent keeps no clients.
                Source::Client(_) => {}
            }
        }
        self.listener.reopen(&self.events, Instant::now());
        if knocked {
            self.open_door();
        }
        Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn take(&self, vector: Vector) -> Result<bool> {
        let Some(driver) = &self.driver else { return Ok(false) };
        driver.find(vector)?.take().map_err(Error::io("take a ring"))
    }

    fn open_door(&mut self) {
        for _ in 0..NEWCOMERS {
            match self.listener.accept() {
                Knock::Newcomer(socket) => match self.serve(&socket) {
                    Ok(()) => tracing::debug!("handed over"),
                    Err(error) => tracing::info!(%error, "could not hand over"),
                },
                Knock::TurnedAway(error) => tracing::warn!(%error, "turned somebody away"),
                Knock::Nobody => return,
                Knock::NotNow(error) => {
                    tracing::warn!(%error, "cannot let anybody in");
                    return self.listener.shut(&self.events, Instant::now());
                }
            }
        }
    }

    /// Says all that there is to say. A new socket has room for it, so who does not read delays nobody; and what he does not read
    /// goes with his socket.
    fn serve(&self, socket: &OwnedFd) -> Result<(), Errno> {
        self.goods().send(socket.as_fd())
    }

    fn goods(&self) -> Goods<BorrowedFd<'_>> {
        let doorbell = self.driver.as_ref().map(|driver| GivenBell {
            id: driver.id(),
            vectors: driver.vectors(),
            device: driver.as_fd(),
            bells: driver.bells().iter().skip(1).take(MAX_BELLS.into()).map(AsFd::as_fd).collect(),
        });
        Goods { memory: self.memory.as_fd(), memory_size: self.memory_size, doorbell }
    }
}

/// The directory of a socket, whatever the umask; one that is there stays as it is.
fn make_directory(socket: &Path) -> io::Result<()> {
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        // What the umask has taken away.
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

impl AsFd for Agent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests;
