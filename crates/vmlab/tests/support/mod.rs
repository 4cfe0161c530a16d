//! What the tests on guests share.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::{NamedTempFile, TempDir};
use vmlab::{Config, Cpu};

/// A file in memory that guests share.
pub(crate) struct Shared(NamedTempFile);

impl Shared {
    pub(crate) const BYTES: u64 = 1 << 20;

    pub(crate) fn new() -> Self {
        let file = tempfile::Builder::new().prefix("vmlab-").tempfile_in("/dev/shm").unwrap();
        file.as_file().set_len(Self::BYTES).unwrap();
        Self(file)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A guest that shares it.
    pub(crate) fn guest(&self, cpu: Cpu, name: &str) -> Config {
        Config::new(cpu).name(name).ivshmem_plain(self.path(), Self::BYTES)
    }

    /// As before anybody counted.
    pub(crate) fn clear(&self) {
        let mut file = File::options().write(true).open(self.path()).unwrap();
        file.write_all(&[0; 4096]).unwrap();
    }

    pub(crate) fn counter(&self) -> u64 {
        let bytes = std::fs::read(self.path()).unwrap();
        u64::from_le_bytes(*bytes.first_chunk().unwrap())
    }
}

/// An ivshmem server, good enough for guests that come and do not go.
pub(crate) struct Server {
    directory: TempDir,
}

impl Server {
    pub(crate) const VECTORS: u32 = 2;

    pub(crate) fn start(shared: &Shared) -> Self {
        let server = Self { directory: tempfile::tempdir().unwrap() };
        let listener = UnixListener::bind(server.socket()).unwrap();
        let memory = shared.0.reopen().unwrap();
        // It ends with the tests.
        std::thread::spawn(move || serve(&listener, &memory));
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

fn serve(listener: &UnixListener, memory: &File) {
    let mut peers: Vec<(UnixStream, Vec<OwnedFd>)> = Vec::new();
    for stream in listener.incoming().map(Result::unwrap) {
        let id = i64::try_from(peers.len()).unwrap();
        let vector = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let vectors: Vec<OwnedFd> = (0..Server::VECTORS).map(|_| vector()).collect();
        let newcomer = || {
            send(&stream, 0, None)?;
            send(&stream, id, None)?;
            send(&stream, -1, Some(memory.as_fd()))?;
            for (peer, (_, theirs)) in (0..).zip(&peers) {
                theirs.iter().try_for_each(|vector| send(&stream, peer, Some(vector.as_fd())))?;
            }
            vectors.iter().try_for_each(|vector| send(&stream, id, Some(vector.as_fd())))
        };
        newcomer().unwrap();
        for (peer, _) in &peers {
            // One that has ended does not listen.
            let _ = vectors.iter().try_for_each(|vector| send(peer, id, Some(vector.as_fd())));
        }
        peers.push((stream, vectors));
    }
}

fn send(to: &UnixStream, value: i64, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(to, &[IoSlice::new(&value.to_le_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
