//! What an ivshmem server of revision 1 says, and what it means.
//!
//! A stream of 64-bit little-endian numbers, from the server to the client only, each with at most one descriptor:
//!
//! ```text
//!            0              id             -1 + memory
//!   (version) ----> (id) ----> (any) <--------------.
//!                                |                   \
//!                                +--- id + bell: the next vector of that peer
//!                                +--- id alone: that peer has left
//!                                '--- -1 + memory, once
//! ```
//! The handshake is done when the memory and all vectors of the client itself have come. [`Conversation`] is this
//! diagram; it knows nothing of sockets, and no bytes make it panic or grow beyond its [`Limits`].

use std::collections::BTreeMap;

use thiserror::Error;

use crate::id::{PeerId, Vector};

/// The version of the protocol, which is the first message.
pub const VERSION: i64 = 0;

/// The message that comes with the memory.
pub const MEMORY: i64 = -1;

/// Bytes of a message.
pub const MESSAGE_SIZE: usize = size_of::<i64>();

/// The most vectors that a peer can have, which is what MSI-X allows.
pub const MAX_VECTORS: u16 = 2048;

/// A message as it is sent.
#[must_use]
pub const fn encode(value: i64) -> [u8; MESSAGE_SIZE] {
    value.to_le_bytes()
}

/// A message as it was meant.
#[must_use]
pub const fn decode(bytes: [u8; MESSAGE_SIZE]) -> i64 {
    i64::from_le_bytes(bytes)
}

/// What a message says; `D` is a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<D> {
    /// The server speaks this version.
    Version,
    /// The client's own id.
    Id(PeerId),
    /// The memory that all share.
    Memory(D),
    /// The bell of a vector, of another peer or of the client itself.
    Bell {
        /// Whose.
        peer: PeerId,
        /// Which; they come in order.
        vector: Vector,
        /// Its eventfd.
        bell: D,
    },
    /// A peer has left.
    Left(PeerId),
}

/// What no correct server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Another version, or no ivshmem server.
    #[error("it speaks version {found}, not {VERSION}")]
    Version {
        /// What came.
        found: i64,
    },
    /// A number that is neither an id nor the memory's.
    #[error("{found} is no peer's id")]
    NotAnId {
        /// What came.
        found: i64,
    },
    /// A descriptor where none belongs, or more than one.
    #[error("a descriptor came where none belongs")]
    StrayDescriptor,
    /// The memory's message came without memory.
    #[error("the message of the memory came without a descriptor")]
    NoDescriptor,
    /// The memory came again.
    #[error("the memory came twice")]
    SecondMemory,
    /// More vectors than the client wants.
    #[error("peer {peer} has more than {limit} vectors; as many must be asked for as the server gives")]
    TooManyVectors {
        /// Whose.
        peer: PeerId,
        /// How many the client wants.
        limit: u16,
    },
    /// More peers than the client wants to know.
    #[error("there are more than {limit} peers")]
    TooManyPeers {
        /// How many it wants to know.
        limit: usize,
    },
    /// Somebody left who was not there, or the client itself.
    #[error("peer {peer} is said to have left, who was not there")]
    NotThere {
        /// Who.
        peer: PeerId,
    },
}

/// How much a client is ready to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Vectors of each peer: as many as the server gives.
    pub vectors: u16,
    /// Peers at a time, itself included.
    pub peers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Version,
    Id,
    Any { own: PeerId, memory: bool },
}

/// The client's side of a conversation: what it has heard, and so what the next message means.
///
/// ```
/// use crosslock_ivshmem::PeerId;
/// use crosslock_ivshmem::protocol::{Conversation, Limits, News};
///
/// let mut conversation = Conversation::new(Limits { vectors: 1, peers: 16 });
/// assert_eq!(conversation.hear(0, None::<&str>)?, News::Version);
/// assert_eq!(conversation.hear(7, None::<&str>)?, News::Id(PeerId::new(7)));
/// assert_eq!(conversation.hear(-1, Some("memory"))?, News::Memory("memory"));
/// assert!(!conversation.is_complete());
/// conversation.hear(7, Some("bell"))?;
/// assert!(conversation.is_complete());
/// # Ok::<(), crosslock_ivshmem::protocol::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conversation {
    limits: Limits,
    expects: Expects,
    /// How many vectors of each peer have come.
    vectors: BTreeMap<PeerId, u16>,
}

impl Conversation {
    /// A conversation that has not begun.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, expects: Expects::Version, vectors: BTreeMap::new() }
    }

    /// How much it is ready to hear.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the memory and all of the client's own vectors have come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Expects::Any { own, memory } = self.expects else { return false };
        memory && self.vectors(own) == self.limits.vectors
    }

    /// How many vectors of `peer` have come.
    #[must_use]
    pub fn vectors(&self, peer: PeerId) -> u16 {
        self.vectors.get(&peer).copied().unwrap_or(0)
    }

    /// What a message means here.
    ///
    /// # Errors
    /// [`Violation`]; the descriptor is dropped, and nothing that comes after is to be believed.
    pub fn hear<D>(&mut self, value: i64, descriptor: Option<D>) -> Result<News<D>, Violation> {
        match (self.expects, value, descriptor) {
            (Expects::Version | Expects::Id, _, Some(_)) => Err(Violation::StrayDescriptor),
            (Expects::Version, VERSION, None) => {
                self.expects = Expects::Id;
                Ok(News::Version)
            }
            (Expects::Version, found, None) => Err(Violation::Version { found }),
            (Expects::Id, _, None) => {
                let own = peer(value)?;
                self.expects = Expects::Any { own, memory: false };
                Ok(News::Id(own))
            }
            (Expects::Any { memory: true, .. }, MEMORY, Some(_)) => Err(Violation::SecondMemory),
            (Expects::Any { own, memory: false }, MEMORY, Some(memory)) => {
                self.expects = Expects::Any { own, memory: true };
                Ok(News::Memory(memory))
            }
            (Expects::Any { .. }, MEMORY, None) => Err(Violation::NoDescriptor),
            (Expects::Any { .. }, _, Some(bell)) => {
                let peer = peer(value)?;
                Ok(News::Bell { peer, vector: self.next_vector(peer)?, bell })
            }
            (Expects::Any { own, .. }, _, None) => {
                let peer = peer(value)?;
                if peer == own || self.vectors.remove(&peer).is_none() {
                    return Err(Violation::NotThere { peer });
                }
                Ok(News::Left(peer))
            }
        }
    }

    fn next_vector(&mut self, peer: PeerId) -> Result<Vector, Violation> {
        let Limits { vectors: most, peers } = self.limits;
        let vector = self.vectors(peer);
        if vector >= most {
            return Err(Violation::TooManyVectors { peer, limit: most });
        }
        if vector == 0 && self.vectors.len() >= peers {
            return Err(Violation::TooManyPeers { limit: peers });
        }
        self.vectors.insert(peer, vector + 1);
        Ok(Vector::new(vector))
    }
}

fn peer(found: i64) -> Result<PeerId, Violation> {
    u16::try_from(found).map(PeerId::new).map_err(|_| Violation::NotAnId { found })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { vectors: 2, peers: 3 };

    fn met() -> Conversation {
        let mut conversation = Conversation::new(LIMITS);
        conversation.hear(VERSION, None::<()>).unwrap();
        conversation.hear(5, None::<()>).unwrap();
        conversation
    }

    #[test]
    fn a_handshake() {
        let mut conversation = met();
        assert_eq!(conversation.hear(MEMORY, Some('m')), Ok(News::Memory('m')));
        for (peer, vector, bell) in [(0, 0, 'a'), (0, 1, 'b'), (5, 0, 'c'), (5, 1, 'd')] {
            assert!(!conversation.is_complete());
            let news = News::Bell { peer: PeerId::new(peer), vector: Vector::new(vector), bell };
            assert_eq!(conversation.hear(peer.into(), Some(bell)), Ok(news));
        }
        assert!(conversation.is_complete());
        assert_eq!(conversation.hear(0, None::<char>), Ok(News::Left(PeerId::SERVER)));
    }

    #[test]
    fn the_memory_may_come_last() {
        let mut conversation = met();
        conversation.hear(5, Some(())).unwrap();
        conversation.hear(5, Some(())).unwrap();
        assert!(!conversation.is_complete());
        conversation.hear(MEMORY, Some(())).unwrap();
        assert!(conversation.is_complete());
    }

    #[test]
    fn violations() {
        let first = |value, fd| Conversation::new(LIMITS).hear::<()>(value, fd).unwrap_err();
        assert_eq!(first(1, None), Violation::Version { found: 1 });
        assert_eq!(first(0, Some(())), Violation::StrayDescriptor);

        let mut versioned = Conversation::new(LIMITS);
        versioned.hear(VERSION, None::<()>).unwrap();
        let second = |value, fd| versioned.clone().hear::<()>(value, fd).unwrap_err();
        assert_eq!(second(-1, None), Violation::NotAnId { found: -1 });
        assert_eq!(second(0x1_0000, None), Violation::NotAnId { found: 0x1_0000 });
        assert_eq!(second(3, Some(())), Violation::StrayDescriptor);

        let mut conversation = met();
        let mut say = |value, fd| conversation.hear::<()>(value, fd);
        assert_eq!(say(MEMORY, None).unwrap_err(), Violation::NoDescriptor);
        say(MEMORY, Some(())).unwrap();
        assert_eq!(say(MEMORY, Some(())).unwrap_err(), Violation::SecondMemory);
        assert_eq!(say(-2, Some(())).unwrap_err(), Violation::NotAnId { found: -2 });
        assert_eq!(say(i64::MIN, None).unwrap_err(), Violation::NotAnId { found: i64::MIN });
        assert_eq!(say(6, None).unwrap_err(), Violation::NotThere { peer: PeerId::new(6) });
        say(5, Some(())).unwrap();
        assert_eq!(say(5, None).unwrap_err(), Violation::NotThere { peer: PeerId::new(5) });
        say(5, Some(())).unwrap();
        let peer = PeerId::new(5);
        assert_eq!(say(5, Some(())).unwrap_err(), Violation::TooManyVectors { peer, limit: 2 });
        say(6, Some(())).unwrap();
        say(7, Some(())).unwrap();
        assert_eq!(say(8, Some(())).unwrap_err(), Violation::TooManyPeers { limit: 3 });
        say(6, None).unwrap();
        say(8, Some(())).unwrap();
    }

    /// Numbers that mean something, mostly.
    fn any_number() -> impl Strategy<Value = i64> {
        prop_oneof![4 => -1i64..8, 1 => 0xfffei64..0x1_0002, 1 => any::<i64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn numbers_survive_the_wire(value in any::<i64>()) {
            prop_assert_eq!(decode(encode(value)), value);
        }

        #[test]
        fn whatever_comes_is_borne(
            messages in proptest::collection::vec((any_number(), any::<bool>()), 0..200),
            begun in any::<bool>(),
        ) {
            let mut conversation = if begun { met() } else { Conversation::new(LIMITS) };
            for (value, fd) in messages {
                // Even one who goes on listening after an error stays within bounds.
                let heard = conversation.hear(value, fd.then_some(()));
                if let Ok(News::Bell { vector, .. }) = heard {
                    prop_assert!(vector.get() < LIMITS.vectors);
                }
                prop_assert!(conversation.vectors.len() <= LIMITS.peers);
                prop_assert!(conversation.vectors.values().all(|&count| count <= LIMITS.vectors));
            }
        }
    }
}
