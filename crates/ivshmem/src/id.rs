//! Names of peers and of their interrupts, as the doorbell register has them.

use core::fmt;

/// A peer: a virtual machine or a host process that is, or was, attached to the server.
///
/// The server gives ids in rising order and never gives one twice while it lives.
///
/// ```
/// use crosslock_ivshmem::{PeerId, Vector};
///
/// // What a guest writes into the doorbell register to ring vector 1 of peer 3.
/// assert_eq!(PeerId::new(3).doorbell(Vector::new(1)), 0x0003_0001);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u16);

impl PeerId {
    /// The server itself, which is a peer like any other.
    pub const SERVER: Self = Self(0);

    /// The peer with that number, as a guest reads it from `IVPosition`.
    #[must_use]
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The value of the doorbell register that rings `vector` of this peer.
    #[must_use]
    pub const fn doorbell(self, vector: Vector) -> u32 {
        (self.0 as u32) << Vector::BITS | vector.0 as u32
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of a peer's interrupts, counted from 0. Each has a bell of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(u16);

impl Vector {
    const BITS: u32 = u16::BITS;

    /// The vector with that number.
    #[must_use]
    pub const fn new(vector: u16) -> Self {
        Self(vector)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Its place among the bells of a peer.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
