//! How a server, or an agent, is told to end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Ends a [`Server::run`](crate::Server::run) or [`Agent::run`](crate::guest::Agent::run), from any thread or from a signal handler. Clones
/// end the same one.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Lets the server come to its end: it serves what it is at, removes its socket and hangs up. One system call, which
    /// does not wait; to a server that has ended it does nothing.
    pub fn stop(&self) {
        // Fails only when it has been called 2^64 times.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Stopper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
