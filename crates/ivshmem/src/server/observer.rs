//! What the server tells whoever knows what is in the memory.

use std::os::fd::BorrowedFd;

use super::peers::Peers;
use crate::id::{PeerId, Vector};

/// Why an observer does not want a newcomer: for the server's log.
pub type Refusal = Box<dyn core::error::Error>;

/// How a client went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// The kernel says that nobody has the client's end of the connection open any more: the process has ended, or
    /// has detached itself. This is proof that it is gone, as far as an honest client goes.
    HungUp,
    /// The server closed the connection: the client did not read in time, or the system refused to go on.
    ///
    /// No proof of anything: the client may be stopped, or slow, and still use the memory. Nothing may be taken from it.
    Dropped,
}

/// Told of what happens, by the thread that runs the server; a slow observer delays everybody.
///
/// ```
/// use std::os::fd::BorrowedFd;
/// use crosslock_ivshmem::{Departure, Observer, PeerId, Peers, Refusal, Vector};
///
/// /// Answers each ring of vector 1 by ringing everybody.
/// struct Echo;
///
/// impl Observer for Echo {
///     fn rung(&mut self, vector: Vector, peers: &Peers) {
///         if vector == Vector::new(1) {
///             peers.ring_all(Vector::new(0));
///         }
///     }
/// }
/// ```
pub trait Observer {
    /// A client is about to join as `peer`. It does not know its id yet, nor does anybody else: what is prepared here is
    /// ready when it comes.
    ///
    /// `connection` is its socket, to ask the kernel who it is (`SO_PEERCRED`); it must not be read or written.
    ///
    /// # Errors
    /// An error turns the client away; the next one is asked about with the same id.
    fn joined(&mut self, peer: PeerId, connection: BorrowedFd<'_>, peers: &Peers) -> Result<(), Refusal> {
        let _ = (peer, connection, peers);
        Ok(())
    }

    /// A client has left, and is not among `peers` any more. Called before anybody else is told: whoever hears of it
    /// finds what is noted here.
    fn left(&mut self, peer: PeerId, departure: Departure, peers: &Peers) {
        let _ = (peer, departure, peers);
    }

    /// Somebody has rung the server, once or more often.
    fn rung(&mut self, vector: Vector, peers: &Peers) {
        let _ = (vector, peers);
    }
}

/// Wants to know nothing.
impl Observer for () {}
