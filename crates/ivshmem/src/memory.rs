//! The memory that all peers share, seen from outside: a descriptor and a size.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use crate::error::{Error, Result};

/// A regular file that can be mapped for writing, of more than no bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) fd: OwnedFd,
    /// In bytes, as it was when the descriptor came.
    pub(crate) size: u64,
}

impl Memory {
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let unfit = |reason, found: String| Error::UnfitMemory { reason, found: found.into() };
        let stat = fstat(&fd).map_err(Error::io("look at the shared memory"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(unfit("it must be a regular file or a memfd", format!("{kind:?}")));
        }
        let flags = fcntl_getfl(&fd).map_err(Error::io("look at the shared memory"))?;
        if flags & OFlags::RWMODE != OFlags::RDWR {
            return Err(unfit("it must be open for reading and writing", format!("{flags:?}")));
        }
        match u64::try_from(stat.st_size) {
            Ok(size @ 1..) => Ok(Self { fd, size }),
            _ => Err(unfit("it must have a size", format!("{} bytes", stat.st_size))),
        }
    }

    /// Refuses what cannot be a base address register: QEMU would end itself.
    pub(crate) fn check_fits_a_bar(&self) -> Result<()> {
        let page = rustix::param::page_size() as u64;
        if self.size.is_power_of_two() && self.size >= page {
            return Ok(());
        }
        let reason = "its size must be a power of two, and at least a page";
        Err(Error::UnfitMemory { reason, found: format!("{} bytes", self.size).into() })
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
