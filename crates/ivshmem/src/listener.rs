//! Newcomers are accepted one at a time, and turned away, not left waiting, where there is no room.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::error::{Error, Result};
use crate::events::{Events, Source};
use crate::socket_file::SocketFile;

/// What was found at the door.
#[derive(Debug)]
pub(crate) enum Knock {
    /// Somebody new.
    Newcomer(OwnedFd),
    /// Somebody for whom this process had no descriptor, and whose connection was closed.
    TurnedAway(Errno),
    /// Nobody (any more).
    Nobody,
    /// Somebody may be waiting, but now nobody can be let in: not even to be turned away.
    NotNow(Errno),
}

/// How long the door stays shut.
const BREATHER: Duration = Duration::from_millis(50);

/// The door, and a descriptor in reserve: who finds none left can still be accepted, and closed.
#[derive(Debug)]
pub(crate) struct Listener {
    file: SocketFile,
    reserve: Option<OwnedFd>,
    /// When newcomers are looked for again, if not now.
    opens: Option<Instant>,
}

impl Listener {
    pub(crate) fn create(path: &Path, mode: u32) -> Result<Self> {
        let file = SocketFile::create(path, mode)?;
        let reserve = Some(reserve().map_err(Error::io("keep a descriptor in reserve"))?);
        Ok(Self { file, reserve, opens: None })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn accept(&mut self) -> Knock {
        match self.try_accept() {
            Ok(newcomer) => Knock::Newcomer(newcomer),
            Err(error @ (Errno::MFILE | Errno::NFILE)) => self.turn_away(error),
            // The last two: it was there, and has gone.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Knock::Nobody,
            Err(error) => Knock::NotNow(error),
        }
    }

    /// Has `events` tell of newcomers.
    pub(crate) fn watch(&self, events: &Events) -> Result<(), Errno> {
        events.watch(self, Source::Door, EventFlags::IN)
    }

    /// Looks away from newcomers for a moment, for they would be seen again and again.
    pub(crate) fn shut(&mut self, events: &Events, now: Instant) {
        if events.change(&*self, Source::Door, EventFlags::empty()).is_ok() {
            self.opens = Some(now + BREATHER);
        }
    }

    /// Looks at newcomers again, if it is time.
    pub(crate) fn reopen(&mut self, events: &Events, now: Instant) {
        if self.opens.is_some_and(|opens| opens <= now)
            && events.change(&*self, Source::Door, EventFlags::IN).is_ok()
        {
            self.opens = None;
        }
    }

    /// When that is, if it is not looking.
    pub(crate) const fn opens(&self) -> Option<Instant> {
        self.opens
    }

    fn turn_away(&mut self, reason: Errno) -> Knock {
        if self.reserve.take().is_none() {
            self.reserve = reserve().ok();
            return Knock::NotNow(reason);
        }
        let knock = match self.try_accept() {
            Ok(newcomer) => {
                drop(newcomer);
                Knock::TurnedAway(reason)
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Knock::Nobody,
            // Another thread took the descriptor.
            Err(error) => Knock::NotNow(error),
        };
        self.reserve = reserve().ok();
        knock
    }

    fn try_accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.file, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn reserve() -> Result<OwnedFd, Errno> {
    eventfd(0, EventfdFlags::CLOEXEC)
}
