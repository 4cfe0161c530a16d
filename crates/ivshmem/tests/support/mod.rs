//! A server in a thread, what it observed, and clients that speak the protocol byte by byte.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crosslock_ivshmem::{
    Client, ClientOptions, Departure, Error, Observer, PeerId, Peers, Refusal, Server, ServerOptions,
    Stopper, Vector,
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

pub(crate) const MEMORY_SIZE: u64 = 1 << 16;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn memory(size: u64) -> OwnedFd {
    let memory = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, size).unwrap();
    memory
}

/// What a server told its observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Joined(u16),
    Left(u16, Departure),
    Rung(u16),
}

/// Writes down what it is told; refuses newcomers while it is told to.
#[derive(Clone, Default)]
pub(crate) struct Record {
    told: Arc<Mutex<Vec<(Told, Instant)>>>,
    pub(crate) refuse: Arc<Mutex<bool>>,
}

impl Record {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push((told, Instant::now()));
    }

    pub(crate) fn all(&self) -> Vec<Told> {
        self.told.lock().unwrap().iter().map(|(told, _)| *told).collect()
    }

    pub(crate) fn count(&self, wanted: Told) -> usize {
        self.all().into_iter().filter(|told| *told == wanted).count()
    }

    /// When the server told this, once it has.
    pub(crate) fn wait_for(&self, wanted: Told) -> Instant {
        let find =
            || self.told.lock().unwrap().iter().find(|(told, _)| *told == wanted).map(|(_, when)| *when);
        eventually(&format!("{wanted:?}"), || find().is_some());
        find().unwrap()
    }
}

impl Observer for Record {
    fn joined(&mut self, peer: PeerId, _: BorrowedFd<'_>, _: &Peers) -> Result<(), Refusal> {
        if *self.refuse.lock().unwrap() {
            return Err("not today".into());
        }
        self.note(Told::Joined(peer.get()));
        Ok(())
    }

    fn left(&mut self, peer: PeerId, departure: Departure, _: &Peers) {
        self.note(Told::Left(peer.get(), departure));
    }

    fn rung(&mut self, vector: Vector, peers: &Peers) {
        self.note(Told::Rung(vector.get()));
        if vector == Vector::new(1) {
            peers.ring_all(Vector::new(1));
        }
    }
}

/// A server that runs in a thread, stopped when this is dropped.
pub(crate) struct Served {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) record: Record,
    pub(crate) stopper: Stopper,
    vectors: u16,
    thread: Option<JoinHandle<crosslock_ivshmem::Result<()>>>,
}

impl Served {
    pub(crate) fn new(options: &ServerOptions, vectors: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = options.clone().vectors(vectors).bind(&socket, memory(MEMORY_SIZE)).unwrap();
        Self::start(server, directory, vectors)
    }

    pub(crate) fn start(server: Server, directory: tempfile::TempDir, vectors: u16) -> Self {
        let (socket, record, stopper) = (server.path().to_owned(), Record::default(), server.stopper());
        let mut observer = record.clone();
        let thread = Some(std::thread::spawn(move || server.run(&mut observer)));
        Self { directory, socket, record, stopper, vectors, thread }
    }

    pub(crate) fn join(&self) -> Client {
        self.try_join().unwrap()
    }

    pub(crate) fn try_join(&self) -> Result<Client, Error> {
        ClientOptions::new().vectors(self.vectors).timeout(LONG).connect(&self.socket)
    }

    pub(crate) fn stop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A connection without manners: sends and receives what a test wants.
pub(crate) struct Raw(pub(crate) OwnedFd);

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(stream.into())
    }

    /// The next message; nothing at the end.
    pub(crate) fn hear(&self) -> Option<(i64, Option<OwnedFd>)> {
        let mut bytes = [0; 8];
        let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(&self.0, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::CONNRESET) => return None,
            Err(error) => panic!("{error}"),
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match received {
            0 => None,
            8 => Some((i64::from_le_bytes(bytes), fd)),
            part => panic!("{part} bytes of a message"),
        }
    }

    /// The next number, and whether a descriptor came with it.
    pub(crate) fn number(&self) -> (i64, bool) {
        let (number, fd) = self.hear().unwrap();
        (number, fd.is_some())
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Updates a client until it knows these peers, and no others.
pub(crate) fn knows(client: &mut Client, wanted: &[PeerId]) {
    eventually(&format!("{} knows {wanted:?}", client.id()), || {
        client.update().unwrap();
        client.peers().eq(wanted.iter().copied())
    });
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Random numbers: xorshift64* (Vigna, 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded from `CROSSLOCK_TEST_SEED`, or else the clock; says which, so that a failure can be repeated.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("CROSSLOCK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_secs() << 20 | u64::from(now.subsec_micros())
        });
        println!("CROSSLOCK_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(bits).unwrap() % bound
    }
}
