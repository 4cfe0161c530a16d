//! Who is there, and how to ring them.

use std::collections::BTreeMap;

use super::seat::Seat;
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::id::{PeerId, Vector};

/// The peers of a server: its clients, and the server itself.
#[derive(Debug)]
pub struct Peers {
    pub(super) own: Vec<Bell>,
    pub(super) clients: BTreeMap<PeerId, Seat>,
    /// The id of the next newcomer; beyond the last that there is when all have been given.
    next: u32,
}

impl Peers {
    pub(super) fn new(own: Vec<Bell>, first: PeerId) -> Self {
        Self { own, clients: BTreeMap::new(), next: first.get().into() }
    }

    /// The ids of all clients, rising.
    pub fn clients(&self) -> impl Iterator<Item = PeerId> {
        self.clients.keys().copied()
    }

    /// Rings a vector of a peer. Rings that it has not taken yet are one.
    ///
    /// # Errors
    /// [`Error::NoSuchPeer`], [`Error::PeerLeft`], [`Error::NoSuchVector`].
    pub fn ring(&self, peer: PeerId, vector: Vector) -> Result<()> {
        let bells = match self.clients.get(&peer) {
            Some(seat) => &seat.bells,
            None if peer == PeerId::SERVER => &self.own,
            None if u32::from(peer.get()) < self.next => return Err(Error::PeerLeft { peer }),
            None => return Err(Error::NoSuchPeer { peer }),
        };
        let vectors = bells.len();
        let bell = bells.get(vector.index()).ok_or(Error::NoSuchVector { peer, vector, vectors })?;
        bell.ring().map_err(Error::io("ring"))
    }

    /// Rings a vector of every client.
    pub fn ring_all(&self, vector: Vector) {
        for (peer, seat) in &self.clients {
            if let Some(Err(error)) = seat.bells.get(vector.index()).map(Bell::ring) {
                tracing::warn!(%peer, %vector, %error, "cannot ring");
            }
        }
    }

    /// The id of the next newcomer, if there is one left.
    pub(super) fn next(&self) -> Option<PeerId> {
        u16::try_from(self.next).ok().map(PeerId::new)
    }

    /// Gives a newcomer its id.
    pub(super) fn seat(&mut self, peer: PeerId, seat: Seat) {
        self.next = u32::from(peer.get()) + 1;
        self.clients.insert(peer, seat);
    }
}
