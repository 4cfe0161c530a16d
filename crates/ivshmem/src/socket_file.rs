//! The name by which clients find the server.
//!
//! A name that a dead server has left is replaced, that of a living one is not, and of two servers that start at once
//! one is refused: all under a lock of the directory, which is held for a moment.
//!
//! Nobody can connect who should not, not even for a moment: the socket has its permissions before it has a name. (On Linux a
//! named socket gets the mode of the unnamed one, less the umask; what the umask took is added afterwards.) The
//! umask itself belongs to the whole process and is left alone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, chmodat, fchmod, flock, fstat, lstat, unlink,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::error::{Error, Result, label};

/// How many may wait to be accepted; more wait in `connect`.
const BACKLOG: i32 = 128;

/// How long the directory may be locked by others.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A listening socket that has a name, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode: what has that name now may be somebody else's.
    identity: (u64, u64),
}

impl SocketFile {
    pub(crate) fn create(path: &Path, mode: u32) -> Result<Self> {
        let address = SocketAddrUnix::new(path).map_err(Error::io("use the path of the socket"))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::io("make a socket"))?;
        let mode = Mode::from_raw_mode(mode);
        fchmod(&socket, mode).map_err(Error::io("set the permissions of the socket"))?;

        let _directory = lock_directory(path)?;
        make_way(path, &address)?;
        bind(&socket, &address).map_err(Error::io("give the socket its name"))?;
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("find the new socket"))?;
        let stat = fstat(&handle).map_err(Error::io("look at the new socket"))?;
        // From here on it is removed if anything fails.
        let this = Self { socket, path: path.to_owned(), identity: identity(&stat) };
        if Mode::from_raw_mode(stat.st_mode) != mode {
            let this_inode = format!("/proc/self/fd/{}", handle.as_raw_fd());
            chmodat(CWD, this_inode, mode, AtFlags::empty())
                .map_err(Error::io("set the permissions of the socket"))?;
        }
        listen(&this.socket, BACKLOG).map_err(Error::io("listen"))?;
        Ok(this)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    /// The socket still listens, so that no server that starts now takes the name for a dead one's.
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|stat| identity(&stat) == self.identity)
            && let Err(error) = unlink(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Keeps other servers from looking for a name in that directory, until the descriptor is closed.
fn lock_directory(path: &Path) -> Result<OwnedFd> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(Error::io("open the directory of the socket"))?;
    let start = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(Error::io("lock the directory of the socket")(error)),
        }
        let waited = start.elapsed();
        if waited >= MAX_WAIT {
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::Busy { socket: label(path), waited_ms });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what a dead server has left. Under the lock of the directory.
fn make_way(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let found = match lstat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(Error::io("look at the path of the socket")(error)),
    };
    let found = match found {
        FileType::Socket => return if has_owner(path, address)? { Err(in_use(path)) } else { remove(path) },
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        _ => "special file",
    };
    Err(Error::NotASocket { socket: label(path), found })
}

/// Whether the socket with that name is open anywhere. Connects as no client of it can, so that a living server is not
/// bothered: a stream refuses a datagram, and only one that is there can refuse it so.
fn has_owner(path: &Path, address: &SocketAddrUnix) -> Result<bool> {
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::io("make a socket"))?;
    match connect(&probe, address) {
        Ok(()) | Err(Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // Somebody else's, who may be alive.
        Err(Errno::ACCESS | Errno::PERM) => Err(in_use(path)),
        Err(error) => Err(Error::io("ask whether the socket is in use")(error)),
    }
}

fn in_use(path: &Path) -> Error {
    Error::InUse { socket: label(path) }
}

fn remove(path: &Path) -> Result<()> {
    tracing::info!(socket = %path.display(), "replacing the socket of a dead server");
    match unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove the socket of a dead server")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_mode_before_it_has_a_name() {
        // What `create` builds on; with a mask that takes nothing, so that only the kernel's rule is seen.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        fchmod(&socket, Mode::from_raw_mode(0o600)).unwrap();
        let mask = rustix::process::umask(Mode::empty());
        let bound = bind(&socket, &SocketAddrUnix::new(&path).unwrap());
        rustix::process::umask(mask);
        bound.unwrap();
        assert_eq!(lstat(&path).unwrap().st_mode & 0o777, 0o600);
    }
}
