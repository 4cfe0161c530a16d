//! Bells: eventfds by which peers wake each other.
//!
//! Every peer has a descriptor of every bell, and all of them share its counter and its flags. So a peer that means
//! harm can fill the counter, empty it, or make the bell a blocking one. Nothing here sleeps for that: readiness is asked for
//! first, reads say that they will not wait, and a full bell counts as rung, which it is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{CWD, OFlags, fcntl_getfl, fcntl_setfl, readlinkat_raw};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2, retry_on_intr};

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The reading position of a file that has none.
const NO_OFFSET: u64 = u64::MAX;

/// One bell; clones are the same bell.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map(|fd| Self(Arc::new(fd)))
    }

    /// The bell that somebody sent, if it is one: writing to any other file could have any effect.
    pub(crate) fn received(fd: OwnedFd) -> Option<Self> {
        is_eventfd(&fd).then(|| Self(Arc::new(fd)))
    }

    /// Rings. Rings that nobody has taken yet are one.
    pub(crate) fn ring(&self) -> Result<(), Errno> {
        if !self.is_ready(PollFlags::OUT, Some(&NOW))? {
            return Ok(());
        }
        self.forbid_blocking()?;
        match retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes all rings; gives whether there were any.
    pub(crate) fn take(&self) -> Result<bool, Errno> {
        let mut count = [0; size_of::<u64>()];
        let read = retry_on_intr(|| {
            let mut buffer = [IoSliceMut::new(&mut count)];
            preadv2(&self.0, &mut buffer, NO_OFFSET, ReadWriteFlags::NOWAIT)
        });
        let read = match read {
            // Before Linux 5.8 an eventfd does not know of reads that do not wait.
            Err(Errno::OPNOTSUPP) => {
                self.forbid_blocking()?;
                retry_on_intr(|| rustix::io::read(&self.0, &mut count))
            }
            known => known,
        };
        match read {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sleeps until it is rung, and takes the rings; gives whether that was before the end of `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<bool, Errno> {
        // A time beyond what the clock can say is no limit.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Another peer may be quicker, and take a ring away.
        while !self.take()? {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            match self.is_ready(PollFlags::IN, left.and_then(|left| left.try_into().ok()).as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn is_ready(&self, wanted: PollFlags, timeout: Option<&Timespec>) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(&self.0, wanted)];
        poll(&mut fds, timeout)?;
        Ok(fds[0].revents().contains(wanted))
    }

    fn forbid_blocking(&self) -> Result<(), Errno> {
        let flags = fcntl_getfl(&self.0)?;
        if flags.contains(OFlags::NONBLOCK) { Ok(()) } else { fcntl_setfl(&self.0, flags | OFlags::NONBLOCK) }
    }
}

/// Whether it is an eventfd; what cannot be looked at is none.
pub(crate) fn is_eventfd(fd: impl AsFd) -> bool {
    let mut target = [0; 32];
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    readlinkat_raw(CWD, path, &mut target).is_ok_and(|len| target[..len] == *b"anon_inode:[eventfd]")
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = u64::MAX - 1;

    fn vandalise(bell: &Bell) {
        rustix::io::write(bell, &FULL.to_ne_bytes()).unwrap();
        fcntl_setfl(bell, OFlags::empty()).unwrap();
    }

    #[test]
    fn rings_add_up_to_one() {
        let bell = Bell::new().unwrap();
        assert!(!bell.take().unwrap());
        bell.ring().unwrap();
        bell.clone().ring().unwrap();
        assert!(bell.wait(None).unwrap());
        assert!(!bell.take().unwrap());
    }

    #[test]
    fn a_full_and_blocking_bell_keeps_nobody() {
        let bell = Bell::new().unwrap();
        vandalise(&bell);
        bell.ring().unwrap();
        assert!(bell.take().unwrap());
        fcntl_setfl(&bell, OFlags::empty()).unwrap();
        assert!(!bell.take().unwrap());
        assert!(!bell.wait(Some(Duration::from_millis(1))).unwrap());
        bell.ring().unwrap();
        assert!(bell.wait(Some(Duration::MAX)).unwrap());
    }

    #[test]
    fn only_eventfds_are_bells() {
        let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert!(Bell::received(bell).is_some());
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
        assert!(Bell::received(socket.unwrap()).is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Bell::received(file.into()).is_none());
    }
}
