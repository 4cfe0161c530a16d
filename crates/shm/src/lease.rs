//! Leases: byte-range locks that the kernel holds for an open file description, and drops when the last
//! descriptor of it is closed, that is, at the latest when the process dies of whatever cause.
//!
//! ```text
//!   byte (beyond the end of any segment)
//!   BASE + 0          registry: exclusive, for the moments of a registration or of an object's creation
//!   BASE + 1          attached: shared, for as long as a segment is mapped read-write
//!   BASE + 16 + slot  the participant of that slot: exclusive, while it is registered
//! ```
//! A lease that is free proves that its holder is gone; no process id and no time-out is needed.
//! The locks are advisory and cost no memory access. This is the only module that calls `fcntl` by hand.

use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use crosslock_core::CpuId;

use crate::error::{Error, Result};

/// Where the lock bytes begin: no segment is this large.
pub(crate) const BASE: u64 = 1 << 40;

/// How long to wait for a lock that is never held for long.
const PATIENCE_MS: u64 = if cfg!(test) { 500 } else { 10_000 };
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(2);

/// A byte that can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    Registry,
    Attached,
    Participant(CpuId),
}

/// How a byte is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Lease {
    fn byte(self) -> libc::off_t {
        let place = match self {
            Self::Registry => 0,
            Self::Attached => 1,
            Self::Participant(slot) => 16 + slot.index() as u64,
        };
        #[expect(clippy::cast_possible_wrap, reason = "far below 2^63")]
        return (BASE + place) as libc::off_t;
    }

    fn request(self, kind: libc::c_int) -> libc::flock {
        #[expect(clippy::cast_possible_truncation, reason = "the constants are small")]
        let (kind, whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
        libc::flock { l_type: kind, l_whence: whence, l_start: self.byte(), l_len: 1, l_pid: 0 }
    }

    /// Locks the byte for `fd`'s description, unless another description is in the way.
    pub(crate) fn try_lock(self, fd: BorrowedFd<'_>, mode: Mode) -> io::Result<bool> {
        let kind = match mode {
            Mode::Shared => libc::F_RDLCK,
            Mode::Exclusive => libc::F_WRLCK,
        };
        match call(fd, libc::F_OFD_SETLK, &mut self.request(kind)) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Locks the byte, and waits for those who are in the way; but not for ever, for they may be stopped,
    /// or hostile.
    pub(crate) fn lock(self, fd: BorrowedFd<'_>, mode: Mode, segment: &str) -> Result<()> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        while !self.try_lock(fd, mode).map_err(Error::io(segment, "lock its file"))? {
            if start.elapsed() > Duration::from_millis(PATIENCE_MS) {
                let what = if self == Self::Registry { "registry" } else { "existence" };
                return Err(Error::Busy { segment: segment.into(), what, waited_ms: PATIENCE_MS });
            }
            std::thread::sleep(pause);
            pause = LAST_PAUSE.min(pause * 2);
        }
        Ok(())
    }

    /// Gives the byte up.
    pub(crate) fn unlock(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        call(fd, libc::F_OFD_SETLK, &mut self.request(libc::F_UNLCK))
    }

    /// Whether a description other than `fd`'s has locked the byte in any mode.
    pub(crate) fn is_held_by_others(self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut request = self.request(libc::F_WRLCK);
        call(fd, libc::F_OFD_GETLK, &mut request)?;
        Ok(libc::c_int::from(request.l_type) != libc::F_UNLCK)
    }
}

fn call(fd: BorrowedFd<'_>, command: libc::c_int, request: &mut libc::flock) -> io::Result<()> {
    // SAFETY: `fd` is open, and these three commands take a pointer to a `flock`, which is exclusively ours.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, core::ptr::from_mut(request)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_lease_is_the_descriptions_and_ends_with_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, other) = (open(), open());
        let lease = Lease::Participant(CpuId::new(7).unwrap());
        assert!(lease.try_lock(one.as_fd(), Mode::Exclusive).unwrap());
        assert!(!lease.try_lock(other.as_fd(), Mode::Exclusive).unwrap());
        assert!(lease.is_held_by_others(other.as_fd()).unwrap());
        assert!(!lease.is_held_by_others(one.as_fd()).unwrap(), "a description does not see itself");
        assert!(!Lease::Participant(CpuId::new(8).unwrap()).is_held_by_others(other.as_fd()).unwrap());
        drop(one);
        assert!(!lease.is_held_by_others(other.as_fd()).unwrap());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, other) = (open(), open());
        Lease::Registry.lock(one.as_fd(), Mode::Exclusive, "s").unwrap();
        let error = Lease::Registry.lock(other.as_fd(), Mode::Exclusive, "s").unwrap_err();
        assert!(matches!(error, Error::Busy { what: "registry", waited_ms: PATIENCE_MS, .. }), "{error}");
        Lease::Registry.unlock(one.as_fd()).unwrap();
        Lease::Registry.lock(other.as_fd(), Mode::Exclusive, "s").unwrap();
    }

    #[test]
    fn shared_leases_go_together() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, other) = (open(), open());
        assert!(Lease::Attached.try_lock(one.as_fd(), Mode::Shared).unwrap());
        assert!(Lease::Attached.try_lock(other.as_fd(), Mode::Shared).unwrap());
        assert!(!Lease::Attached.try_lock(other.as_fd(), Mode::Exclusive).unwrap());
        Lease::Attached.unlock(one.as_fd()).unwrap();
        assert!(Lease::Attached.try_lock(other.as_fd(), Mode::Exclusive).unwrap());
    }
}
