//! What a server is like.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::Server;
use crate::error::{Error, Result};
use crate::id::{PeerId, Vector};
use crate::protocol::MAX_VECTORS;

/// How a server is to be; after [`std::fs::OpenOptions`].
///
/// ```
/// use std::time::Duration;
/// use crosslock_ivshmem::ServerOptions;
///
/// let options = ServerOptions::new().vectors(4).max_clients(16).handshake_timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    pub(super) vectors: u16,
    pub(super) max_clients: u16,
    pub(super) first_id: PeerId,
    pub(super) mode: u32,
    pub(super) alarm: Vector,
    pub(super) handshake_timeout: Duration,
    pub(super) patience: Option<Duration>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerOptions {
    /// Two vectors, 64 clients, mode 0600, deaths ring vector 0, ten seconds for a handshake, no limit after it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            vectors: 2,
            max_clients: 64,
            first_id: PeerId::new(PeerId::SERVER.get() + 1),
            mode: 0o600,
            alarm: Vector::new(0),
            handshake_timeout: Duration::from_secs(10),
            patience: None,
        }
    }

    /// How many vectors each peer has: 1 to 2048, as many as QEMU is told by `vectors=`.
    ///
    /// The server needs a descriptor for each vector of each client. And a QEMU with KVM takes a slot of the virtual machine's
    /// I/O bus, which has 1000, for each vector of each peer, and ends itself when there is none left: so peers
    /// times vectors is best kept below 900.
    #[must_use]
    pub const fn vectors(mut self, vectors: u16) -> Self {
        self.vectors = vectors;
        self
    }

    /// How many clients can be attached at a time: 1 to 65535. The next one is turned away.
    #[must_use]
    pub const fn max_clients(mut self, clients: u16) -> Self {
        self.max_clients = clients;
        self
    }

    /// The id of the first client; 1 otherwise. For a server that takes the place of one whose clients still run: theirs are not
    /// to be given again.
    #[must_use]
    pub const fn first_id(mut self, id: PeerId) -> Self {
        self.first_id = id;
        self
    }

    /// The permissions of the socket, whatever the umask; only the lowest nine bits count. Who may write to it may
    /// join; `docs/ivshmem.md` says with what power.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// The vector of every survivor that is rung when a client has gone.
    #[must_use]
    pub const fn alarm(mut self, vector: Vector) -> Self {
        self.alarm = vector;
        self
    }

    /// How long a newcomer may take to read the handshake, before it is dropped.
    #[must_use]
    pub const fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a client may leave later messages unread, before it is dropped.
    ///
    /// By default there is no limit, because none is needed: what a client that does not read can cost is bounded, and a
    /// virtual machine that is stopped for an hour is not dead. One that was dropped cannot come back.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Makes a server for `memory`, and its socket at `path`; clients can connect from now on, and are served
    /// by [`Server::run`]. A socket that a dead server has left there is replaced.
    ///
    /// `memory` is a regular file or a memfd, open for reading and writing; its size is a power of two, as QEMU demands, and must not change.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::UnfitMemory`]; [`Error::InUse`], [`Error::NotASocket`], [`Error::Busy`];
    /// [`Error::Io`] where the operating system refuses.
    pub fn bind(&self, path: impl AsRef<Path>, memory: impl Into<OwnedFd>) -> Result<Server> {
        let check = |fine: bool, option, value: u16, reason| {
            if fine { Ok(()) } else { Err(Error::InvalidOption { option, value: value.into(), reason }) }
        };
        check((1..=MAX_VECTORS).contains(&self.vectors), "vectors", self.vectors, "from 1 to 2048")?;
        check(
            self.first_id != PeerId::SERVER,
            "first_id",
            self.first_id.get(),
            "not 0, which is the server's",
        )?;
        check(self.max_clients > 0, "max_clients", self.max_clients, "at least 1")?;
        check(self.alarm.get() < self.vectors, "alarm", self.alarm.get(), "less than the number of vectors")?;
        Server::new(self.clone(), path.as_ref(), memory.into())
    }
}
