//! Who is at the other end of a Unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::Pid;

/// The process that made the other end of a connection, as the kernel noted it then; none where that process is in another pid
/// namespace, one that this process cannot see into.
///
/// For that case the kernel says 0, which rustix's `socket_peercred` takes for a process id, and those are never 0.
///
/// ```
/// let (here, _there) = std::os::unix::net::UnixStream::pair()?;
/// assert_eq!(crosslock_ivshmem::peer_process(&here)?, Some(rustix::process::getpid()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// It is no connected Unix socket.
pub fn peer_process(connection: impl AsFd) -> io::Result<Option<Pid>> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    #[expect(clippy::cast_possible_truncation, reason = "twelve bytes")]
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = connection.as_fd().as_raw_fd();
    let value = (&raw mut credentials).cast();
    // SAFETY: the kernel writes at most `size` bytes, which there are; any bytes are a ucred.
    #[expect(unsafe_code, reason = "rustix gives a wrong type for it")]
    let failed =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &raw mut size) } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(credentials.pid))
}
