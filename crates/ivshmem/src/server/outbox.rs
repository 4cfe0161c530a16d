//! What one client has still to be told.
//!
//! News that is no longer true is not told: when a peer leaves before a client has heard of it, what was to be said of it is
//! taken back, so the client hears nothing, or all that it needs. So an outbox has at most
//!
//! ```text
//!   3                             version, id, memory
//! + (clients + 1) * vectors       the peers that there are, the server among them
//! + clients                       peers that were there when the client last read
//! ```
//! messages, however long the client reads nothing and however many come and go meanwhile, and it keeps nobody's
//! descriptors open but those of peers that are there. That is why a client that does not read need not be dropped.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::bell::Bell;
use crate::id::PeerId;
use crate::memory::Memory;
use crate::protocol::{MEMORY, VERSION};
use crate::wire;

#[derive(Debug)]
enum Message {
    Version,
    Id(PeerId),
    Memory(Arc<Memory>),
    Bell(PeerId, Bell),
    Left(PeerId),
}

/// How far the messages got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// To the client's socket, all of them.
    All,
    /// The client must read first; gives how many went before that.
    Full(usize),
    /// The system has no room for messages, which is not the client's fault.
    Starved,
}

/// The messages that one client has not got.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: VecDeque<Message>,
}

impl Outbox {
    /// The beginning of every conversation.
    pub(super) fn new(own: PeerId, memory: &Arc<Memory>) -> Self {
        let messages = [Message::Version, Message::Id(own), Message::Memory(memory.clone())];
        Self { messages: messages.into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// There is a peer with these bells.
    pub(super) fn introduce(&mut self, peer: PeerId, bells: &[Bell]) {
        self.messages.extend(bells.iter().map(|bell| Message::Bell(peer, bell.clone())));
    }

    /// The peer, which was [introduced](Self::introduce) with so many bells, has left.
    pub(super) fn retract(&mut self, peer: PeerId, bells: usize) {
        let before = self.messages.len();
        self.messages.retain(|message| !matches!(message, Message::Bell(of, _) if *of == peer));
        if before - self.messages.len() < bells {
            self.messages.push_back(Message::Left(peer));
        }
    }

    /// Sends what the client has room for.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<Sent, Errno> {
        let mut count = 0;
        while let Some(message) = self.messages.front() {
            match message.send(socket) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(Sent::Full(count)),
                Err(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => return Ok(Sent::Starved),
                Err(error) => return Err(error),
            }
            self.messages.pop_front();
            count += 1;
        }
        Ok(Sent::All)
    }
}

impl Message {
    fn send(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        match self {
            Self::Version => wire::send(socket, VERSION, None),
            Self::Id(peer) | Self::Left(peer) => wire::send(socket, peer.get().into(), None),
            Self::Memory(memory) => wire::send(socket, MEMORY, Some(memory.as_fd())),
            Self::Bell(peer, bell) => wire::send(socket, peer.get().into(), Some(bell.as_fd())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox { messages: VecDeque::new() }
    }

    #[test]
    fn who_was_never_told_of_somebody_is_not_told_that_he_left() {
        let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
        let (one, two) = (PeerId::new(1), PeerId::new(2));
        let mut outbox = outbox();
        outbox.introduce(one, &bells);
        outbox.introduce(two, &bells);
        outbox.retract(one, 2);
        assert!(
            outbox.messages.iter().all(|message| matches!(message, Message::Bell(peer, _) if *peer == two))
        );
        assert_eq!(outbox.messages.len(), 2);
    }

    #[test]
    fn who_was_told_of_half_of_him_is_told_that_he_left() {
        let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
        let one = PeerId::new(1);
        let mut outbox = outbox();
        outbox.introduce(one, &bells);
        outbox.messages.pop_front();
        outbox.retract(one, 2);
        assert!(matches!(outbox.messages.pop_front(), Some(Message::Left(peer)) if peer == one));
        assert!(outbox.is_empty());
    }
}
