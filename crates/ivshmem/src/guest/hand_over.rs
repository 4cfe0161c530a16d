//! What an agent says to each process that connects, once, and all at once: messages as those of an ivshmem server, each one number
//! with at most one descriptor.
//!
//! ```text
//!   "clgs" << 32 | 1              greeting, with the version
//!   id, or -1                     which peer this machine is; -1: a device without a doorbell
//!   vectors                       how many each peer has; 0 without a doorbell
//!   size          + memory        in bytes
//!   0             + device        with a doorbell only: the device as VFIO has opened it
//! ```
//! The agent hears nothing and keeps nothing of those who connect.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::id::PeerId;
use crate::protocol::MAX_VECTORS;

/// Where agents listen unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/crosslock/ivshmem.sock";

const VERSION: i64 = 1;
pub(super) const GREETING: i64 = (u32::from_be_bytes(*b"clgs") as i64) << 32 | VERSION;
const NO_PEER: i64 = -1;

/// What there is to hand over. `F` is any kind of descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Goods<F> {
    pub(super) memory: F,
    pub(super) memory_size: u64,
    pub(super) doorbell: Option<Bell<F>>,
}

/// What there is of a device with a doorbell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bell<F> {
    pub(super) id: PeerId,
    pub(super) vectors: u16,
    pub(super) device: F,
}

impl<'a> Goods<BorrowedFd<'a>> {
    /// The messages, in order.
    pub(super) fn messages(&self) -> Vec<(i64, Option<BorrowedFd<'a>>)> {
        let (id, vectors) = match &self.doorbell {
            Some(bell) => (bell.id.get().into(), bell.vectors.into()),
            None => (NO_PEER, 0),
        };
        let size = i64::try_from(self.memory_size).unwrap_or(i64::MAX);
        let mut messages = vec![(GREETING, None), (id, None), (vectors, None), (size, Some(self.memory))];
        messages.extend(self.doorbell.as_ref().map(|bell| (0, Some(bell.device))));
        messages
    }
}

/// Something that no agent of this version says: what it was about, and what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense {
    pub(super) what: &'static str,
    pub(super) found: i64,
}

/// Listens to an agent, message by message.
#[derive(Debug)]
pub(super) enum Listener<F> {
    Start,
    Greeted,
    Named(Option<PeerId>),
    Counted(Option<(PeerId, u16)>),
    Supplied(PeerId, u16, F, u64),
}

impl<F> Listener<F> {
    /// Hears the next message: gives who hears the one after it, or all that there is.
    pub(super) fn hear(self, found: i64, fd: Option<F>) -> Result<Result<Self, Goods<F>>, Nonsense> {
        let wrong = |what| Err(Nonsense { what, found });
        let next = match (self, fd) {
            (Self::Start, None) if found == GREETING => Self::Greeted,
            (Self::Start, _) => return wrong("the greeting"),
            (Self::Greeted, None) if found == NO_PEER => Self::Named(None),
            (Self::Greeted, None) => match u16::try_from(found) {
                Ok(id) => Self::Named(Some(PeerId::new(id))),
                Err(_) => return wrong("the id"),
            },
            (Self::Named(None), None) if found == 0 => Self::Counted(None),
            (Self::Named(Some(id)), None) => match u16::try_from(found) {
                Ok(vectors @ 1..=MAX_VECTORS) => Self::Counted(Some((id, vectors))),
                _ => return wrong("the number of vectors"),
            },
            (Self::Counted(bell), Some(memory)) => match (u64::try_from(found), bell) {
                (Ok(size @ 1..), Some((id, vectors))) => Self::Supplied(id, vectors, memory, size),
                (Ok(memory_size @ 1..), None) => {
                    return Ok(Err(Goods { memory, memory_size, doorbell: None }));
                }
                _ => return wrong("the size of the memory"),
            },
            (Self::Supplied(id, vectors, memory, memory_size), Some(device)) if found == 0 => {
                let doorbell = Some(Bell { id, vectors, device });
                return Ok(Err(Goods { memory, memory_size, doorbell }));
            }
            (Self::Named(None), None) => return wrong("the number of vectors"),
            (Self::Supplied(..), _) => return wrong("the device"),
            (_, None) => return wrong("a message without its descriptor"),
            (_, Some(_)) => return wrong("a message with a descriptor"),
        };
        Ok(Ok(next))
    }
}

/// What an agent says, as it arrives.
pub(super) type Arriving = Listener<OwnedFd>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hear(messages: &[(i64, Option<u8>)]) -> Result<Option<Goods<u8>>, Nonsense> {
        let mut listener = Listener::Start;
        for (number, &(value, fd)) in messages.iter().enumerate() {
            match listener.hear(value, fd)? {
                Ok(next) => listener = next,
                Err(goods) => {
                    assert_eq!(number, messages.len() - 1, "it wants no more");
                    return Ok(Some(goods));
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn both_kinds_of_device_are_handed_over() {
        let doorbell = [(GREETING, None), (7, None), (2, None), (4096, Some(b'm')), (0, Some(b'd'))];
        let bell = Bell { id: PeerId::new(7), vectors: 2, device: b'd' };
        let goods = Goods { memory: b'm', memory_size: 4096, doorbell: Some(bell) };
        assert_eq!(hear(&doorbell), Ok(Some(goods)));
        let plain = [(GREETING, None), (-1, None), (0, None), (4096, Some(b'm'))];
        assert_eq!(hear(&plain), Ok(Some(Goods { memory: b'm', memory_size: 4096, doorbell: None })));
        for length in 0..doorbell.len() {
            assert_eq!(hear(&doorbell[..length]), Ok(None));
        }
    }

    #[test]
    fn nonsense_is_named() {
        let what = |messages: &[(i64, Option<u8>)]| hear(messages).unwrap_err().what;
        let start = (GREETING, None);
        assert_eq!(what(&[(GREETING + 1, None)]), "the greeting");
        assert_eq!(what(&[(GREETING, Some(0))]), "the greeting");
        assert_eq!(what(&[start, (-2, None)]), "the id");
        assert_eq!(what(&[start, (65536, None)]), "the id");
        assert_eq!(what(&[start, (3, Some(0))]), "a message with a descriptor");
        assert_eq!(what(&[start, (3, None), (0, None)]), "the number of vectors");
        assert_eq!(what(&[start, (3, None), (2049, None)]), "the number of vectors");
        assert_eq!(what(&[start, (-1, None), (1, None)]), "the number of vectors");
        assert_eq!(what(&[start, (3, None), (1, None), (0, Some(0))]), "the size of the memory");
        assert_eq!(what(&[start, (3, None), (1, None), (5, None)]), "a message without its descriptor");
        assert_eq!(what(&[start, (3, None), (1, None), (5, Some(0)), (1, Some(0))]), "the device");
        assert_eq!(what(&[start, (3, None), (1, None), (5, Some(0)), (0, None)]), "the device");
    }

    /// What an agent says, and what it does not.
    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(GREETING),
            Just(NO_PEER),
            Just(0),
            -3..3i64,
            2040..2060i64,
            65530..65540i64,
            any::<i64>()
        ]
    }

    proptest! {
        #[test]
        fn anything_may_be_said(
            messages in prop::collection::vec((value(), any::<Option<u8>>()), 0..6),
            is_greeted in prop::bool::weighted(0.9),
        ) {
            let mut all = messages;
            if is_greeted {
                all.insert(0, (GREETING, None));
            }
            let mut listener = Listener::Start;
            for (number, (value, fd)) in all.iter().copied().enumerate() {
                match listener.hear(value, fd) {
                    Ok(Ok(next)) => listener = next,
                    Ok(Err(goods)) => {
                        // Only what an agent could have said comes to its end.
                        let mut said = vec![all[0], all[1], all[2]];
                        prop_assert_eq!(said[0], (GREETING, None));
                        prop_assert_eq!(i64::try_from(goods.memory_size), Ok(all[3].0));
                        prop_assert_eq!(Some(goods.memory), all[3].1);
                        said.drain(..1);
                        match goods.doorbell {
                            Some(bell) => {
                                prop_assert_eq!(said, [(bell.id.get().into(), None), (bell.vectors.into(), None)]);
                                prop_assert!((1..=MAX_VECTORS).contains(&bell.vectors));
                                prop_assert_eq!((number, all[4]), (4, (0, Some(bell.device))));
                            }
                            None => {
                                prop_assert_eq!(said, [(NO_PEER, None), (0, None)]);
                                prop_assert_eq!(number, 3);
                            }
                        }
                        break;
                    }
                    Err(nonsense) => {
                        prop_assert_eq!(nonsense.found, value);
                        break;
                    }
                }
            }
        }
    }
}
