//! What the server's thread waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::id::{PeerId, Vector};

/// Longest sleep; no limit is known to need it, but `epoll_wait` has one of its own, 24 days.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// How many events are served before the next look at the others.
const BATCH: usize = 64;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Client(PeerId),
    /// A bell of the server's own.
    Bell(Vector),
    Door,
    Stop,
}

impl Source {
    const KIND_SHIFT: u32 = u16::BITS;
    const CLIENT: u64 = 0;
    const BELL: u64 = 1;
    const DOOR: u64 = 2;
    const STOP: u64 = 3;

    const fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Client(peer) => (Self::CLIENT, peer.get()),
            Self::Bell(vector) => (Self::BELL, vector.get()),
            Self::Door => (Self::DOOR, 0),
            Self::Stop => (Self::STOP, 0),
        };
        kind << Self::KIND_SHIFT | number as u64
    }

    const fn unpack(data: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number")]
        let number = data as u16;
        match data >> Self::KIND_SHIFT {
            Self::CLIENT => Self::Client(PeerId::new(number)),
            Self::BELL => Self::Bell(Vector::new(number)),
            Self::DOOR => Self::Door,
            _ => Self::Stop,
        }
    }
}

/// The epoll instance.
#[derive(Debug)]
pub(crate) struct Events(OwnedFd);

impl Events {
    pub(crate) fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(Self)
    }

    /// Waits for `wanted` on `fd`; its end and its errors are always told.
    pub(crate) fn watch(&self, fd: impl AsFd, source: Source, wanted: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.0, fd, EventData::new_u64(source.pack()), wanted)
    }

    /// Waits for something else on a watched `fd`.
    pub(crate) fn change(&self, fd: impl AsFd, source: Source, wanted: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.0, fd, EventData::new_u64(source.pack()), wanted)
    }

    /// Sleeps until something happens; gives nothing at the end of `timeout`, after an hour, or after a signal.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<Vec<(Source, EventFlags)>, Errno> {
        let timeout = timeout.map_or(MAX_SLEEP, |timeout| timeout.min(MAX_SLEEP));
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        let mut events = Vec::with_capacity(BATCH);
        match epoll::wait(&self.0, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(events.iter().map(|event| (Source::unpack(event.data.u64()), event.flags)).collect())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for number in [0, 1, u16::MAX] {
            let (client, bell) = (Source::Client(PeerId::new(number)), Source::Bell(Vector::new(number)));
            for source in [client, bell, Source::Door, Source::Stop] {
                assert_eq!(Source::unpack(source.pack()), source);
            }
        }
    }
}
