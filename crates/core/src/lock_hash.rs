//! The lock hash: from a lock whose queue head sleeps to the node of that head.
//!
//! Open addressing; an entry is free while its key is 0. There is at most one entry for each lock (only
//! the head of its queue, or the owner on the head's behalf, makes it; only the owner takes it out), and a
//! CPU waits for at most four locks at once: with four entries for each CPU there is always a free one.

use core::num::NonZeroU64;

use crate::error::Corrupted;
use crate::per_cpu::NodeId;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, const_new};

/// The name of a lock in the hash: its offset in a segment plus 1, or its address in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockKey(NonZeroU64);

impl LockKey {
    /// `None` for 0, which means "no lock".
    #[must_use]
    pub const fn new(key: u64) -> Option<Self> {
        match NonZeroU64::new(key) {
            Some(key) => Some(Self(key)),
            None => None,
        }
    }

    /// Names a lock by the address of its word: for memory that is mapped once.
    #[must_use]
    pub fn of_address<W>(word: &W) -> Self {
        // An address that a reference has is not 0.
        Self(NonZeroU64::new(core::ptr::from_ref(word).addr() as u64).unwrap_or(NonZeroU64::MIN))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// Fibonacci hashing (Knuth, TAOCP 3, 6.4): the high bits of the product are well mixed.
    const fn start(self, entries: usize) -> usize {
        let mixed = (self.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        mixed & entries.wrapping_sub(1)
    }
}

/// One entry of the lock hash.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HashEntry {
    key: AtomicU64,
    node: AtomicU32,
}

impl HashEntry {
    const_new! {
        /// A free entry.
        pub fn new() -> Self {
            Self { key: AtomicU64::new(0), node: AtomicU32::new(0) }
        }
    }

    /// The lock whose queue head sleeps, where the entry is in use: for inspection and tests.
    #[must_use]
    pub fn lock(&self) -> Option<LockKey> {
        LockKey::new(self.key.load(Ordering::Relaxed))
    }

    /// Takes the entry out of the hash.
    pub(crate) fn clear(&self) {
        // Release: pairs with the Acquire of the next `insert`; our reads of `node` are over. (loom cannot show
        // a store that overtakes an earlier load, so this pair is argued, not checked.)
        self.key.store(0, Ordering::Release);
    }
}

/// Every entry once, beginning at the key's place.
fn probe(hash: &[HashEntry], key: LockKey) -> impl Iterator<Item = &HashEntry> {
    let start = key.start(hash.len()).min(hash.len());
    hash[start..].iter().chain(&hash[..start])
}

/// Enters `node` as the sleeping head of `key`'s queue; gives the entry, and how many were looked at. The caller
/// publishes it by making the locked byte SLOW, with Release.
pub(crate) fn insert(hash: &[HashEntry], key: LockKey, node: NodeId) -> Result<(&HashEntry, u64), Corrupted> {
    for (hops, entry) in (1..).zip(probe(hash, key)) {
        // Acquire: pairs with the Release in `clear`.
        if entry.key.compare_exchange(0, key.get(), Ordering::Acquire, Ordering::Relaxed).is_ok() {
            entry.node.store(node.bits(), Ordering::Relaxed);
            return Ok((entry, hops));
        }
    }
    Err(Corrupted::HashFull { entries: hash.len() })
}

/// Takes the sleeping head of `key`'s queue out. The caller has read SLOW, with Acquire.
pub(crate) fn remove(hash: &[HashEntry], key: LockKey) -> Result<NodeId, Corrupted> {
    for entry in probe(hash, key) {
        if entry.key.load(Ordering::Relaxed) == key.get() {
            let bits = entry.node.load(Ordering::Relaxed);
            entry.clear();
            return NodeId::from_bits(bits)?.ok_or(Corrupted::NoSuchNode { bits });
        }
    }
    Err(Corrupted::NotHashed { key: key.get() })
}
