//! A host process as a peer.
//!
//! Whatever the server says costs an error at most: all is checked before it is believed, and what is kept is bounded by
//! [`Limits`].

mod options;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

pub use self::options::ClientOptions;

use crate::bell::Bell;
use crate::error::{Error, Result, label};
use crate::id::{PeerId, Vector};
use crate::line::Line;
use crate::memory::Memory;
use crate::protocol::{Conversation, Limits, News};

/// How many messages one [`Client::update`] reads at most, so that a server that never stops talking keeps nobody.
const MESSAGES: usize = 4096;

/// What [`Client::update`] has learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A peer is there, with all its vectors.
    Joined(PeerId),
    /// A peer has gone. Why, only the server knows; what it knows it has noted before it told.
    Left(PeerId),
}

/// This process as a peer: its memory, its bells, and those of the others.
///
/// It is a peer as long as this lives; when it is dropped, or the process dies, the server tells the others.
///
/// ```no_run
/// use std::time::Duration;
/// use crosslock_ivshmem::{Change, Client, Vector};
///
/// let mut client = Client::connect("/run/crosslock/ivshmem.sock")?;
/// for change in client.update()? {
///     if let Change::Joined(peer) = change {
///         client.ring(peer, Vector::new(1))?;
///     }
/// }
/// if client.wait(Vector::new(1), Some(Duration::from_secs(1)))? {
///     println!("somebody has rung");
/// }
/// # Ok::<(), crosslock_ivshmem::Error>(())
/// ```
#[derive(Debug)]
pub struct Client {
    id: PeerId,
    memory: Memory,
    peers: BTreeMap<PeerId, Vec<Bell>>,
    /// The highest id heard of: ids rise, so who is not known and not higher has left.
    highest: PeerId,
    conversation: Conversation,
    line: Line,
    /// Whether the server is not to be listened to any more. The line stays open: to close it would mean to leave.
    is_over: bool,
    /// Why, as long as the caller has not been told.
    failure: Option<Error>,
}

impl Client {
    /// [`ClientOptions::connect`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        ClientOptions::new().connect(path)
    }

    fn join(path: &Path, limits: Limits, timeout: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut conversation = Conversation::new(limits);
        let (mut id, mut memory, mut peers) = (None, None, BTreeMap::new());
        let timed_out = |vectors| {
            let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            Error::TimedOut { socket: label(path), waited_ms, vectors, wanted: limits.vectors }
        };
        let mut line = Line::open(path, timeout)?.ok_or_else(|| timed_out(0))?;
        while !conversation.is_complete() {
            let own_vectors = id.map_or(0, |id| conversation.vectors(id));
            let heard = match line.listen() {
                Err(Error::ServerGone) if id.is_none() => {
                    return Err(Error::TurnedAway { socket: label(path) });
                }
                heard => heard?,
            };
            let Some((value, descriptor)) = heard else {
                let left = timeout.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(timed_out(own_vectors));
                }
                line.wait(left)?;
                continue;
            };
            match conversation.hear(value, descriptor)? {
                News::Version => {}
                News::Id(own) => id = Some(own),
                News::Memory(fd) => memory = Some(Memory::new(fd)?),
                News::Bell { peer, vector, bell } => {
                    let bell = Bell::received(bell).ok_or(Error::NotABell { peer, vector })?;
                    peers.entry(peer).or_insert_with(Vec::new).push(bell);
                }
                News::Left(peer) => drop(peers.remove(&peer)),
            }
            // A server that talks without end is late, too.
            if start.elapsed() > timeout {
                return Err(timed_out(own_vectors));
            }
        }
        let (Some(id), Some(memory)) = (id, memory) else { return Err(Error::ServerGone) };
        let highest = peers.keys().copied().fold(id, PeerId::max);
        Ok(Self { id, memory, peers, highest, conversation, line, is_over: false, failure: None })
    }

    /// The id of this process.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// How many vectors each peer has.
    #[must_use]
    pub const fn vectors(&self) -> u16 {
        self.conversation.limits().vectors
    }

    /// The memory: a regular file or a memfd. Check what is in it, and seal or watch its size, before it is trusted.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// How large the memory was when it came, in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> u64 {
        self.memory.size
    }

    /// The other peers that have all their vectors, rising; [`update`](Self::update) brings it up to date.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        let complete = |bells: &Vec<Bell>| bells.len() == usize::from(self.vectors());
        self.peers
            .iter()
            .filter(move |(peer, bells)| **peer != self.id && complete(bells))
            .map(|(peer, _)| *peer)
    }

    /// Hears what the server has to say; never sleeps. The client's descriptor ([`AsFd`]) is readable when there is something.
    ///
    /// # Errors
    /// [`Error::ServerGone`] when the server has ended; [`Error::Violation`], [`Error::NotABell`],
    /// [`Error::OutOfDescriptors`], [`Error::Io`] when it is not to be listened to any more. What was heard
    /// before has been given, known peers can still be rung, and from then on this gives `ServerGone`: do not poll the
    /// descriptor any more.
    pub fn update(&mut self) -> Result<Vec<Change>> {
        if self.is_over {
            return Err(self.failure.take().unwrap_or(Error::ServerGone));
        }
        let mut changes = Vec::new();
        for _ in 0..MESSAGES {
            match self.hear() {
                Ok(Some(change)) => changes.extend(change),
                Ok(None) => break,
                Err(error) => {
                    self.is_over = true;
                    if changes.is_empty() {
                        return Err(error);
                    }
                    // First what came before it.
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(changes)
    }

    /// One message, if there is one, and what it changes.
    fn hear(&mut self) -> Result<Option<Option<Change>>> {
        let Some((value, descriptor)) = self.line.listen()? else { return Ok(None) };
        let change = match self.conversation.hear(value, descriptor)? {
            News::Bell { peer, vector, bell } => {
                let bell = Bell::received(bell).ok_or(Error::NotABell { peer, vector })?;
                self.highest = self.highest.max(peer);
                let bells = self.peers.entry(peer).or_default();
                bells.push(bell);
                (bells.len() == usize::from(self.conversation.limits().vectors))
                    .then_some(Change::Joined(peer))
            }
            News::Left(peer) => {
                self.peers.remove(&peer);
                Some(Change::Left(peer))
            }
            // These came in the handshake, and come once.
            News::Version | News::Id(_) | News::Memory(_) => None,
        };
        Ok(Some(change))
    }

    /// Rings a vector of a peer, or of this process. Rings that it has not taken yet are one.
    ///
    /// # Errors
    /// [`Error::NoSuchPeer`], [`Error::PeerLeft`], [`Error::NoSuchVector`], as far as [`update`](Self::update) has heard;
    /// [`Error::Io`].
    pub fn ring(&self, peer: PeerId, vector: Vector) -> Result<()> {
        self.find(peer, vector)?.ring().map_err(Error::io("ring"))
    }

    /// Sleeps until somebody rings `vector` of this process, and takes the rings; gives whether that was before the end of `timeout`.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`], [`Error::Io`].
    pub fn wait(&self, vector: Vector, timeout: Option<Duration>) -> Result<bool> {
        self.find(self.id, vector)?.wait(timeout).map_err(Error::io("wait for a ring"))
    }

    /// The eventfd of a vector of this process, to be polled together with others; [`wait`](Self::wait) with no time
    /// takes the rings.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`].
    pub fn bell(&self, vector: Vector) -> Result<BorrowedFd<'_>> {
        self.find(self.id, vector).map(Bell::as_fd)
    }

    fn find(&self, peer: PeerId, vector: Vector) -> Result<&Bell> {
        let Some(bells) = self.peers.get(&peer) else {
            return Err(if peer <= self.highest {
                Error::PeerLeft { peer }
            } else {
                Error::NoSuchPeer { peer }
            });
        };
        bells.get(vector.index()).ok_or(Error::NoSuchVector { peer, vector, vectors: bells.len() })
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
