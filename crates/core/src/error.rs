//! What a lock says when shared memory holds what no correct peer writes.

use thiserror::Error;

/// A lock word, a node or a hash entry holds a value that the protocol never writes: a peer is broken
/// or hostile. The lock must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Corrupted {
    /// A tail or a link names a node that does not exist.
    #[error("the queue names node {bits:#06x} (cpu {}, index {}), which does not exist; a peer wrote garbage", (.bits >> 2).wrapping_sub(1), .bits & 3)]
    NoSuchNode {
        /// The 16 bits found (see [`crate::NodeId`]).
        bits: u32,
    },
    /// Release of a lock whose word says that nobody holds it, or that it is held in no known way.
    #[error(
        "released a lock whose word is {word:#010x}, which is not held; double release, or a peer wrote garbage"
    )]
    NotHeld {
        /// The lock word found.
        word: u32,
    },
    /// The word says that the queue head is asleep and hashed, but the hash does not have it.
    #[error(
        "lock {key:#x} says that a sleeper is hashed, but the lock hash has no such entry; a peer wrote garbage"
    )]
    NotHashed {
        /// The lock's key (see [`crate::LockKey`]).
        key: u64,
    },
    /// The owner word of a robust lock says nothing that a correct participant writes.
    #[error("the lock's owner word is {word:#018x}, which names nobody; a peer wrote garbage")]
    NoSuchOwner {
        /// The word found.
        word: u64,
    },
    /// Release of a robust lock that the caller does not own any more.
    #[error(
        "the lock's owner word is {word:#018x}, not this thread's name; somebody has taken the lock away, or a peer wrote garbage"
    )]
    NotOwner {
        /// The word found.
        word: u64,
    },
    /// No free entry in the lock hash, which has room for every CPU four times over.
    #[error("the lock hash is full ({entries} entries); it needs four for each CPU, or a peer wrote garbage")]
    HashFull {
        /// How many entries it has.
        entries: usize,
    },
}
