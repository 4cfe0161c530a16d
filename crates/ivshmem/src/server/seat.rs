//! One client, as the server has it.
//!
//! The server reads nothing from a client, for the protocol has nothing for a client to say. What one sends nevertheless
//! stays in the kernel, on the client's own account: there is no parser to be fooled and no descriptor to be closed,
//! and a client that sends until its socket is full waits only for itself.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::observer::Departure;
use super::outbox::{Outbox, Sent};
use crate::bell::Bell;
use crate::events::{Events, Source};
use crate::id::PeerId;

/// Bytes of a socket's buffer, which is about ten messages. Descriptors in flight count against a limit that all
/// processes of a user share, so those who do not read may keep a few only.
const SEND_BUFFER: usize = 4096;

/// How long a client may leave its messages unread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// All of the first ones.
    pub(super) handshake: Duration,
    /// Any one later, if there is a limit.
    pub(super) news: Option<Duration>,
}

/// A client's connection, its bells and what it has still to be told.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) bells: Vec<Bell>,
    pub(super) outbox: Outbox,
    socket: OwnedFd,
    in_handshake: bool,
    /// Whether the server waits for the client to read.
    awaits_room: bool,
    /// Whether the server waits for the system to have room.
    starved: bool,
    /// When the server's patience ends.
    deadline: Option<Instant>,
}

impl Seat {
    pub(super) fn new(socket: OwnedFd, bells: Vec<Bell>, outbox: Outbox, deadline: Instant) -> Self {
        let deadline = Some(deadline);
        Self { bells, outbox, socket, in_handshake: true, awaits_room: false, starved: false, deadline }
    }

    /// Makes a connection ready to be watched, and watches for its end.
    pub(super) fn prepare(socket: &OwnedFd, peer: PeerId, events: &Events) -> Result<(), Errno> {
        set_socket_send_buffer_size(socket, SEND_BUFFER)?;
        events.watch(socket, Source::Client(peer), EventFlags::empty())
    }

    /// Whether there is something to send, and nothing known that forbids it.
    pub(super) fn has_news(&self) -> bool {
        !self.outbox.is_empty() && !self.awaits_room
    }

    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends what there is room for, and watches for room for the rest.
    ///
    /// # Errors
    /// How the client went, if it turns out that it has.
    pub(super) fn flush(
        &mut self,
        peer: PeerId,
        events: &Events,
        patience: Patience,
        now: Instant,
    ) -> Result<(), Departure> {
        use std::os::fd::AsFd;
        let sent = self.outbox.flush(self.socket.as_fd()).map_err(|error| match error {
            Errno::PIPE | Errno::CONNRESET => Departure::HungUp,
            error => {
                tracing::warn!(%peer, %error, "cannot send to a client");
                Departure::Dropped
            }
        })?;
        self.starved = sent == Sent::Starved;
        match sent {
            Sent::All => {
                self.in_handshake = false;
                self.deadline = None;
            }
            Sent::Full(_) if self.in_handshake => {}
            // Time runs from the last message that the client made room for.
            Sent::Full(count) if count > 0 || self.deadline.is_none() => {
                self.deadline = patience.news.and_then(|patience| now.checked_add(patience));
            }
            Sent::Full(_) => {}
            // None of this is the client's fault.
            Sent::Starved if self.in_handshake => self.deadline = now.checked_add(patience.handshake),
            Sent::Starved => self.deadline = None,
        }
        self.await_room(matches!(sent, Sent::Full(_)), peer, events)
    }

    fn await_room(&mut self, wanted: bool, peer: PeerId, events: &Events) -> Result<(), Departure> {
        if self.awaits_room == wanted {
            return Ok(());
        }
        self.awaits_room = wanted;
        let flags = if wanted { EventFlags::OUT } else { EventFlags::empty() };
        events.change(&self.socket, Source::Client(peer), flags).map_err(|error| {
            tracing::warn!(%peer, %error, "cannot watch a client");
            Departure::Dropped
        })
    }
}
