//! The files behind segments: how they come to be in one step, and how they are opened without trust.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fchmod,
    fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, linkat, memfd_create,
};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::description::{Description, InChild};
use crate::error::{Error, Result};
use crate::header::{BUMP_OFFSET, Geometry, HEADER_SIZE, Header, MAGIC};

/// A complete segment without a name, in a file that vanishes unless [`publish`]ed.
pub(crate) fn create_unnamed(
    label: &str,
    directory: &Path,
    mode: u32,
    header: &Header,
) -> Result<Description> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = || rustix::fs::open(directory, flags, Mode::from_raw_mode(mode));
    let file = Description::track(InChild::Attach, open)
        .map_err(Error::io(label, "create a file in its directory"))?;
    // The mode that was asked for, not what the umask left of it.
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::io(label, "set its mode"))?;
    initialise(label, &file, header)?;
    Ok(file)
}

/// Gives the file of [`create_unnamed`] its name, unless it is taken.
pub(crate) fn publish(label: &str, file: &Description, path: &Path) -> Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(|error| match error {
        Errno::EXIST => Error::Exists { segment: label.into() },
        other => Error::io(label, "give it its name")(other),
    })
}

/// A complete segment in anonymous memory that can neither grow nor shrink.
pub(crate) fn create_anonymous(label: &str, name: &str, header: &Header) -> Result<Description> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = Description::track(InChild::Attach, || memfd_create(name, flags))
        .map_err(Error::io(label, "create its memory"))?;
    initialise(label, &file, header)?;
    seal(label, &file)?;
    Ok(file)
}

/// Everything but the header is zero, which is what free slots, nodes and entries are.
fn initialise(label: &str, file: &Description, header: &Header) -> Result<()> {
    let size = header.total_size;
    ftruncate(file, size).map_err(Error::io(label, "set its size"))?;
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        // A file system without it gives the memory later, or kills whoever touches it.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(Error::io(label, "reserve its memory")(error)),
    }
    let mut start = [0; HEADER_SIZE];
    start[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    start[BUMP_OFFSET..][..8].copy_from_slice(&header.heap.to_le_bytes());
    let written = rustix::io::pwrite(file, &start, 0).map_err(Error::io(label, "write its header"))?;
    if written < start.len() {
        return Err(Error::io(label, "write its header")(std::io::Error::from(
            std::io::ErrorKind::WriteZero,
        )));
    }
    Ok(())
}

/// Makes sure that nobody cuts the memory off under those who have it mapped, where that is possible.
pub(crate) fn seal(label: &str, file: &Description) -> Result<()> {
    match fcntl_get_seals(file) {
        Ok(seals) if !seals.contains(SealFlags::SEAL) => {
            fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
                .map_err(Error::io(label, "seal its size"))
        }
        // Sealed already, or a file that cannot be.
        Ok(_) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(Error::io(label, "read its seals")(error)),
    }
}

/// A handle of whatever has that name, which cannot block and has no side effects; good for [`open`].
pub(crate) fn locate(label: &str, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Error::NotFound { segment: label.into() },
        other => Error::io(label, "look it up")(other),
    })
}

/// A description of its own of the file behind `fd`, if that is a regular one.
pub(crate) fn open(label: &str, fd: BorrowedFd<'_>, writable: bool) -> Result<Description> {
    let stat = fstat(fd).map_err(Error::io(label, "look at its file"))?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("directory"),
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("fifo"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice => Some("character device"),
        FileType::BlockDevice => Some("block device"),
        FileType::Unknown => Some("file of unknown type"),
    };
    if let Some(found) = found {
        return Err(Error::NotRegular { segment: label.into(), found });
    }
    let (access, in_child, mode) = if writable {
        (OFlags::RDWR, InChild::Attach, "read-write")
    } else {
        (OFlags::RDONLY, InChild::Share, "read-only")
    };
    Description::reopen(fd, access | OFlags::NONBLOCK, in_child).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::PermissionDenied { segment: label.into(), mode },
        _ => Error::io(label, "open it")(error),
    })
}

/// Whether the file still has a name.
pub(crate) fn has_name(label: &str, file: &Description) -> Result<bool> {
    Ok(fstat(file).map_err(Error::io(label, "look at its file"))?.st_nlink > 0)
}

/// Whether the file begins as a segment does.
pub(crate) fn has_magic(file: &Description) -> bool {
    let mut found = [0; MAGIC.len()];
    read_start(file, &mut found).is_ok_and(|found| found == MAGIC)
}

/// Reads the header, once, and checks it.
pub(crate) fn read_geometry(label: &str, file: &Description) -> Result<Geometry> {
    let stat = fstat(file).map_err(Error::io(label, "look at its file"))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut buffer = [0; size_of::<Header>()];
    let bytes = read_start(file, &mut buffer).map_err(Error::io(label, "read its header"))?;
    let magic = MAGIC.len().min(bytes.len());
    if bytes[..magic] != MAGIC[..magic] {
        return Err(Error::NotASegment { segment: label.into(), found: bytes[..magic].into() });
    }
    let header = Header::read_from_bytes(bytes).ok().filter(|_| size >= HEADER_SIZE as u64);
    let needed = HEADER_SIZE as u64;
    header.ok_or(Error::Truncated { segment: label.into(), size, needed })?.check(label, size)
}

/// Reads as much as there is.
fn read_start<'a>(file: &Description, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let mut len = 0;
    while len < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[len..], len as u64))? {
            0 => break,
            more => len += more,
        }
    }
    Ok(&buffer[..len])
}
