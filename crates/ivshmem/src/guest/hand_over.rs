//! What an agent says to each process that connects, once, and all at once: messages as those of an ivshmem server, each one number
//! with at most one descriptor.
//!
//! ```text
//!   "clgs" << 32 | 2              greeting, with the version
//!   id, or -1                     which peer this machine is; -1: a device without a doorbell
//!   vectors                       how many each peer has; 0 without a doorbell
//!   size          + memory        in bytes
//!   0             + device        with a doorbell only: the device as VFIO has opened it
//!   1             + eventfd       likewise, one message for each vector but 0: what its interrupts write to
//!   2             + eventfd
//!   ...                           up to vector 64
//! ```
//! Vector 0 is the agent's. More than 64 bells are not handed on: all that is said must fit into the buffer of a new socket, and every
//! process that attaches needs room for as many descriptors.
//!
//! The agent hears nothing and keeps nothing of those who connect.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::id::PeerId;
use crate::protocol::MAX_VECTORS;

/// Where agents listen unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/crosslock/ivshmem.sock";

/// How many bells are handed over at most: those of vectors 1 to 64.
pub(super) const MAX_BELLS: u16 = 64;

const VERSION: i64 = 2;
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
    /// Of the vectors from 1, [`bells_of`] the vectors.
    pub(super) bells: Vec<F>,
}

/// How many bells are handed over where each peer has so many vectors.
pub(super) fn bells_of(vectors: u16) -> u16 {
    vectors.saturating_sub(1).min(MAX_BELLS)
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
        if let Some(bell) = &self.doorbell {
            messages.push((0, Some(bell.device)));
            messages.extend((1..).zip(bell.bells.iter().copied().map(Some)));
        }
        messages
    }

    /// Says all of it; never sleeps. A new socket has room for it, whether anybody reads or not.
    pub(super) fn send(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        self.messages().into_iter().try_for_each(|(value, fd)| crate::wire::send(socket, value, fd))
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
    Opened(F, u64, Bell<F>),
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
                let bells = Vec::with_capacity(bells_of(vectors).into());
                return Ok(Self::opened(memory, memory_size, Bell { id, vectors, device, bells }));
            }
            (Self::Opened(memory, memory_size, mut bell), Some(eventfd))
                if usize::try_from(found) == Ok(bell.bells.len() + 1) =>
            {
                bell.bells.push(eventfd);
                return Ok(Self::opened(memory, memory_size, bell));
            }
            (Self::Named(None), None) => return wrong("the number of vectors"),
            (Self::Supplied(..), _) => return wrong("the device"),
            (Self::Opened(..), _) => return wrong("the bell of the next vector"),
            (_, None) => return wrong("a message without its descriptor"),
            (_, Some(_)) => return wrong("a message with a descriptor"),
        };
        Ok(Ok(next))
    }

    /// With the device: who hears the next bell, or all that there is.
    fn opened(memory: F, memory_size: u64, bell: Bell<F>) -> Result<Self, Goods<F>> {
        if bell.bells.len() < bells_of(bell.vectors).into() {
            Ok(Self::Opened(memory, memory_size, bell))
        } else {
            Err(Goods { memory, memory_size, doorbell: Some(bell) })
        }
    }
}

/// What an agent says, as it arrives.
pub(super) type Arriving = Listener<OwnedFd>;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;
    use crate::bell::{Bell as Eventfd, is_eventfd};
    use crate::wire::Incoming;

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
        let doorbell = [
            (GREETING, None),
            (7, None),
            (3, None),
            (4096, Some(b'm')),
            (0, Some(b'd')),
            (1, Some(b'1')),
            (2, Some(b'2')),
        ];
        let bell = Bell { id: PeerId::new(7), vectors: 3, device: b'd', bells: b"12".to_vec() };
        let goods = Goods { memory: b'm', memory_size: 4096, doorbell: Some(bell) };
        assert_eq!(hear(&doorbell), Ok(Some(goods)));
        let plain = [(GREETING, None), (-1, None), (0, None), (4096, Some(b'm'))];
        assert_eq!(hear(&plain), Ok(Some(Goods { memory: b'm', memory_size: 4096, doorbell: None })));
        for length in 0..doorbell.len() {
            assert_eq!(hear(&doorbell[..length]), Ok(None));
        }
    }

    #[test]
    fn all_bells_but_the_first_are_handed_over_up_to_a_limit() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for (vectors, bells) in [(1, 0), (2, 1), (64, 63), (65, 64), (66, 64), (MAX_VECTORS, 64)] {
            assert_eq!(bells_of(vectors), bells);
            let given = vec![file.as_fd(); bells.into()];
            let bell = Bell { id: PeerId::new(7), vectors, device: file.as_fd(), bells: given };
            let goods = Goods { memory: file.as_fd(), memory_size: 4096, doorbell: Some(bell) };
            let said: Vec<_> =
                goods.messages().into_iter().map(|(value, fd)| (value, fd.map(|_| 0))).collect();
            assert_eq!(said.len(), 5 + usize::from(bells));
            let heard = hear(&said).unwrap().unwrap().doorbell.unwrap();
            assert_eq!((heard.vectors, heard.bells), (vectors, vec![0; bells.into()]));
        }
    }

    #[test]
    fn a_new_socket_has_room_for_all_and_nobody_need_read() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let eventfds: Vec<Eventfd> = (0..MAX_BELLS).map(|_| Eventfd::new().unwrap()).collect();
        let bells = eventfds.iter().map(Eventfd::as_fd).collect();
        let bell = Bell { id: PeerId::new(7), vectors: MAX_VECTORS, device: file.as_fd(), bells };
        let goods = Goods { memory: file.as_fd(), memory_size: 4096, doorbell: Some(bell) };
        let (agent, newcomer) = UnixStream::pair().unwrap();
        goods.send(agent.as_fd()).unwrap();
        // The control: the room has an end, and then nobody sleeps.
        let more = (0..10_000).map(|_| goods.send(agent.as_fd())).take_while(Result::is_ok).count();
        assert!(more < 10_000);
        assert_eq!(goods.send(agent.as_fd()), Err(Errno::AGAIN));
        println!("a new socket has room for that {} times", 1 + more);

        let (mut listener, mut incoming) = (Arriving::Start, Incoming::default());
        let heard = loop {
            let (value, fd) = incoming.receive(newcomer.as_fd()).unwrap().expect("all was said");
            match listener.hear(value, fd).unwrap() {
                Ok(next) => listener = next,
                Err(goods) => break goods.doorbell.unwrap(),
            }
        };
        assert_eq!(heard.bells.len(), usize::from(MAX_BELLS));
        assert!(!is_eventfd(&heard.device) && heard.bells.iter().all(is_eventfd));
        // Each is that of its vector.
        for (eventfd, bell) in eventfds.iter().zip(heard.bells) {
            let bell = Eventfd::received(bell).unwrap();
            assert!(!bell.take().unwrap());
            eventfd.ring().unwrap();
            assert!(bell.take().unwrap());
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
        let opened = [start, (3, None), (3, None), (5, Some(0)), (0, Some(0))];
        let bell = |messages: &[(i64, Option<u8>)]| what(&[&opened[..], messages].concat());
        for wrong in [(0, Some(0)), (2, Some(0)), (-1, Some(0)), (1, None)] {
            assert_eq!(bell(&[wrong]), "the bell of the next vector");
        }
        assert_eq!(bell(&[(1, Some(0)), (1, Some(0))]), "the bell of the next vector");
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
            // How many of the first messages are as an agent says them.
            right in 0..9usize,
            vectors in 1..5u16,
        ) {
            let agent = [
                (GREETING, None),
                (7, None),
                (vectors.into(), None),
                (4096, Some(0)),
                (0, Some(1)),
                (1, Some(2)),
                (2, Some(3)),
                (3, Some(4)),
            ];
            let all: Vec<_> = agent.into_iter().take(right).chain(messages).collect();
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
                                prop_assert_eq!(all[4], (0, Some(bell.device)));
                                prop_assert_eq!(bell.bells.len(), usize::from(bells_of(bell.vectors)));
                                let bells = (1..).zip(bell.bells.into_iter().map(Some));
                                prop_assert_eq!(&all[5..=number], bells.collect::<Vec<_>>());
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
