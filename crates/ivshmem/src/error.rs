//! What can go wrong with a server or a client, said so that a person knows what to do.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::guest::DeviceError;
use crate::id::{PeerId, Vector};
use crate::protocol::Violation;

/// Why a server or a client cannot do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of range.
    #[error("{option} = {value} is out of range: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: u64,
        /// What it must be.
        reason: &'static str,
    },
    /// The descriptor is none of memory that QEMU can map.
    #[error("the descriptor cannot be the shared memory: {reason} ({found})")]
    UnfitMemory {
        /// What it must be.
        reason: &'static str,
        /// What it is.
        found: Box<str>,
    },
    /// A living server has the socket.
    #[error("{socket} belongs to a server that is running; stop that one, or use another path")]
    InUse {
        /// The path.
        socket: Box<str>,
    },
    /// The path of the socket belongs to something else.
    #[error("{socket} is a {found}, not a socket; remove it, or use another path")]
    NotASocket {
        /// The path.
        socket: Box<str>,
        /// What it is.
        found: &'static str,
    },
    /// Somebody has kept the directory of the socket locked.
    #[error(
        "the directory of {socket} has been locked by another process for {waited_ms} ms; is that one stopped?"
    )]
    Busy {
        /// The path.
        socket: Box<str>,
        /// How long this process has waited, in milliseconds.
        waited_ms: u64,
    },
    /// Nobody serves at the path.
    #[error("no server listens at {socket} ({source}); start it first")]
    NoServer {
        /// The path.
        socket: Box<str>,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server closed the connection before it gave an id.
    #[error(
        "the server at {socket} turned this process away: no seat, id or descriptor was left, or it did not want it; its log says which"
    )]
    TurnedAway {
        /// The path.
        socket: Box<str>,
    },
    /// The server did not complete the handshake in time.
    #[error(
        "the server at {socket} did not finish the handshake in {waited_ms} ms, it gave {vectors} of {wanted} vectors; does it have as many, and does it run?"
    )]
    TimedOut {
        /// The path.
        socket: Box<str>,
        /// How long this process has waited, in milliseconds.
        waited_ms: u64,
        /// How many vectors of its own this process was given.
        vectors: u16,
        /// How many it wants.
        wanted: u16,
    },
    /// The connection to the server has ended: nobody tells of peers any more; those known can still be rung.
    #[error(
        "the server has gone; peers that are known can still be rung, but nobody tells of new or dead ones"
    )]
    ServerGone,
    /// The server said what no correct server says.
    #[error("the server broke the protocol: {0}; is it an ivshmem server?")]
    Violation(#[from] Violation),
    /// What the server gave as a bell is none.
    #[error("the server gave something else than an eventfd for vector {vector} of peer {peer}")]
    NotABell {
        /// Whose.
        peer: PeerId,
        /// Which.
        vector: Vector,
    },
    /// This process has no room for a descriptor that the server sent.
    #[error(
        "a descriptor from the server was lost, for this process has too many; raise its limit (ulimit -n)"
    )]
    OutOfDescriptors,
    /// Nobody with that id is known, or ever was.
    #[error("there is no peer {peer} yet")]
    NoSuchPeer {
        /// The id.
        peer: PeerId,
    },
    /// The peer is gone, and its id will not be used again.
    #[error("peer {peer} has left")]
    PeerLeft {
        /// The id.
        peer: PeerId,
    },
    /// The peer has fewer vectors.
    #[error("peer {peer} has no vector {vector}: it has {vectors}, counted from 0")]
    NoSuchVector {
        /// Whose.
        peer: PeerId,
        /// Which.
        vector: Vector,
        /// How many it has.
        vectors: usize,
    },
    /// The device of this machine cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What failed.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the operating system refused to do `what`.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }
}

/// How errors name a path.
pub(crate) fn label(path: &Path) -> Box<str> {
    path.to_string_lossy().into()
}

/// What every fallible function here gives.
pub type Result<T, E = Error> = core::result::Result<T, E>;
