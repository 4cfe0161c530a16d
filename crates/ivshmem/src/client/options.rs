//! How a process joins.

use std::path::Path;
use std::time::Duration;

use super::Client;
use crate::error::{Error, Result};
use crate::protocol::{Limits, MAX_VECTORS};

/// How to join a server; after [`std::fs::OpenOptions`].
///
/// ```
/// use std::time::Duration;
/// use crosslock_ivshmem::{ClientOptions, Error};
///
/// let options = ClientOptions::new().vectors(4).timeout(Duration::from_secs(1));
/// assert!(matches!(options.connect("/nowhere/ivshmem.sock"), Err(Error::NoServer { .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    vectors: u16,
    max_peers: u16,
    timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientOptions {
    /// Two vectors, at most 1024 peers, ten seconds.
    #[must_use]
    pub const fn new() -> Self {
        Self { vectors: 2, max_peers: 1024, timeout: Duration::from_secs(10) }
    }

    /// How many vectors the server gives each peer: 1 to 2048. The protocol does not say, so it must be known, as QEMU must.
    #[must_use]
    pub const fn vectors(mut self, vectors: u16) -> Self {
        self.vectors = vectors;
        self
    }

    /// How many peers this process is ready to know at a time, itself included, each with a descriptor a vector. A
    /// server that tells of more breaks the connection.
    #[must_use]
    pub const fn max_peers(mut self, peers: u16) -> Self {
        self.max_peers = peers;
        self
    }

    /// How long connecting and the handshake may take together.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Joins the server at `path`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::NoServer`], [`Error::TurnedAway`], [`Error::TimedOut`]; where the server says what no
    /// correct one says, [`Error::Violation`], [`Error::UnfitMemory`] or [`Error::NotABell`];
    /// [`Error::ServerGone`], [`Error::OutOfDescriptors`], [`Error::Io`].
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<Client> {
        if !(1..=MAX_VECTORS).contains(&self.vectors) {
            let (option, value, reason) = ("vectors", self.vectors.into(), "from 1 to 2048");
            return Err(Error::InvalidOption { option, value, reason });
        }
        let limits = Limits { vectors: self.vectors, peers: self.max_peers.into() };
        Client::join(path.as_ref(), limits, self.timeout)
    }
}
