//! The connection to a server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::{Error, Result, label};
use crate::wire::Incoming;

/// A socket, and the message that is coming in.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedFd,
    incoming: Incoming,
}

impl Line {
    /// Connects; gives nothing if that took longer than `timeout`, because nobody accepts.
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Option<Self>> {
        let address = SocketAddrUnix::new(path).map_err(Error::io("use the path of the socket"))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("make a socket"))?;
        // The kernel counts in microseconds; zero would mean no limit.
        let limit = timeout.max(Duration::from_micros(1));
        set_socket_timeout(&socket, Timeout::Send, Some(limit))
            .map_err(Error::io("limit the time to connect"))?;
        match connect(&socket, &address) {
            Ok(()) => Ok(Some(Self { socket, incoming: Incoming::default() })),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(Error::NoServer { socket: label(path), source: error.into() }),
        }
    }

    /// The next message, if it is there; never sleeps.
    pub(crate) fn listen(&mut self) -> Result<Option<(i64, Option<OwnedFd>)>> {
        self.incoming.receive(self.socket.as_fd())
    }

    /// Sleeps until there is something to listen to, or for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<()> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, timeout.try_into().ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Error::io("wait for the server")(error)),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
