//! Where a domain keeps what its own kernel must touch: alive words, bells, leases.
//!
//! For a segment in ordinary memory that is the segment's file. A guest sees the segment as the memory of a device, on which
//! nobody can sleep and in which no kernel marks a death. Its threads share a file of their own beside it:
//!
//! ```text
//!   page 0           page 1 + n, of the domain's slot n
//!   +---------+      +------+-----------------+---------------+
//!   | changes |      | bell |                 | alive word .. |
//!   +---------+      +------+-----------------+---------------+
//! ```
//! `bell` counts how often the sleeper of the slot was to be woken; `changes` how often somebody registered. The file is as
//! old as the guest: who creates it knows that whoever is in the domain's slots died with an earlier one.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use crosslock_core::primitive::AtomicU32;
use rustix::fs::{AtFlags, CWD, Mode as FileMode, OFlags, fchmod, fstat, ftruncate, linkat};
use rustix::io::Errno;
use rustix::param::page_size;

use crate::description::{Description, InChild};
use crate::error::{Error, Result};
use crate::lease::{Lease, Mode};
use crate::mapping::Mapping;

/// A domain's own file, mapped.
#[derive(Debug)]
pub(crate) struct Home {
    mapping: Mapping,
    page: usize,
}

/// The file of a home, and whether this process has just created it: then it has the registry lock of it.
pub(crate) struct Opened {
    pub(crate) file: Description,
    pub(crate) home: Home,
    pub(crate) is_new: bool,
}

impl Home {
    /// Opens the home of a domain of `slots` slots, or creates it.
    pub(crate) fn open_or_create(path: &Path, slots: usize, mode: u32) -> Result<Opened> {
        let label = path.to_string_lossy();
        let size = (1 + slots) * page_size();
        loop {
            match Self::open(&label, path, size) {
                Err(Error::NotFound { .. }) => {}
                opened => return opened,
            }
            // Who is a moment later finds the file of who was faster.
            if let Some(created) = Self::create(&label, path, size, mode)? {
                return Ok(created);
            }
        }
    }

    fn open(label: &str, path: &Path, size: usize) -> Result<Opened> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = || rustix::fs::open(path, flags, FileMode::empty());
        let file = Description::track(InChild::Attach, open).map_err(|error| match error {
            Errno::NOENT => Error::NotFound { segment: label.into() },
            error => Error::io(label, "open it")(error),
        })?;
        let found = fstat(&file).map_err(Error::io(label, "look at it"))?.st_size;
        let (header, file_size) = (size as u64, found.unsigned_abs());
        if header != file_size {
            return Err(Error::SizeMismatch { segment: label.into(), header, file: file_size });
        }
        Self::of(label, file, size, false)
    }

    /// `None` where another was faster.
    fn create(label: &str, path: &Path, size: usize, mode: u32) -> Result<Option<Opened>> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let open = || rustix::fs::open(directory, flags, FileMode::from_raw_mode(mode));
        let file = Description::track(InChild::Attach, open).map_err(Error::io(label, "create it"))?;
        // The mode that was asked for, not what the umask left of it.
        fchmod(&file, FileMode::from_raw_mode(mode)).map_err(Error::io(label, "set its mode"))?;
        ftruncate(&file, size as u64).map_err(Error::io(label, "set its size"))?;
        // Before anybody else can see the file.
        Lease::Registry.lock(file.as_fd(), Mode::Exclusive, label)?;
        let unnamed = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        match linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Self::of(label, file, size, true).map(Some),
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(Error::io(label, "give it its name")(error)),
        }
    }

    fn of(label: &str, file: Description, size: usize, is_new: bool) -> Result<Opened> {
        let mapping = Mapping::new(file.as_fd(), size, true).map_err(Error::io(label, "map it"))?;
        Ok(Opened { file, home: Self { mapping, page: page_size() }, is_new })
    }

    /// Where in the file the page of the domain's slot number `index` lies.
    pub(crate) fn alive_page(&self, index: usize) -> usize {
        self.page * (1 + index)
    }

    /// The word at `offset` of that page.
    pub(crate) fn word(&self, index: usize, offset: usize) -> &AtomicU32 {
        self.mapping.at(self.alive_page(index) + offset)
    }

    /// The word on which the slot's thread sleeps.
    pub(crate) fn bell(&self, index: usize) -> &AtomicU32 {
        self.word(index, 0)
    }

    /// The word on which the agent sleeps, besides the alive words.
    pub(crate) fn changes(&self) -> &AtomicU32 {
        self.mapping.at(0)
    }
}
