//! Sleeps on the bell of a vector, as any process of a guest may that has the device from the agent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use crosslock_core::primitive::Ordering;
use crosslock_ivshmem::guest::Attachment;
use crosslock_ivshmem::{PeerId, Vector};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use crate::memory::Memory;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which vector of this machine, from 1
    vector: u16,
    /// Of the word to which each ring adds 1, in bytes
    offset: usize,
    /// Ring vector 1 of this peer for each ring
    #[arg(long, value_name = "PEER")]
    answer: Option<u16>,
    /// Read the eventfd, which takes the ring away from the others: what must not be done
    #[arg(long)]
    by_reading: bool,
}

/// Counts rings until killed.
pub(crate) fn listen(args: &Args, attachment: &Attachment) -> anyhow::Result<()> {
    let memory = Memory::map(attachment.memory(), attachment.memory_size())?;
    let count = memory.word(args.offset)?;
    let index = usize::from(args.vector).checked_sub(1).context("vector 0 is the agent's")?;
    let bell = attachment.bells().get(index).with_context(|| format!("no bell of vector {}", args.vector))?;
    let sleeper = Sleeper::new(bell.as_fd(), args.by_reading)?;
    if !args.by_reading {
        // The agent has rung every bell at its start, and nobody has taken that away.
        sleeper.sleep()?;
    }
    crate::say(format_args!("listens to {} bells", attachment.bells().len()))?;
    loop {
        sleeper.sleep()?;
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(peer) = args.answer {
            attachment.ring(PeerId::new(peer), Vector::new(1))?;
        }
    }
}

enum Sleeper<'a> {
    Edge(OwnedFd),
    Read(BorrowedFd<'a>),
}

impl<'a> Sleeper<'a> {
    fn new(bell: BorrowedFd<'a>, by_reading: bool) -> Result<Self, Errno> {
        if by_reading {
            // The agent's ring, which only one of all who read can take.
            return match take(bell) {
                Ok(()) | Err(Errno::AGAIN) => Ok(Self::Read(bell)),
                Err(error) => Err(error),
            };
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, bell, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        Ok(Self::Edge(epoll))
    }

    /// Until the next ring.
    fn sleep(&self) -> Result<(), Errno> {
        match self {
            Self::Edge(epoll) => {
                let mut events = Vec::with_capacity(1);
                retry_on_intr(|| epoll::wait(epoll, spare_capacity(&mut events), None)).map(drop)
            }
            Self::Read(bell) => loop {
                retry_on_intr(|| poll(&mut [PollFd::new(bell, PollFlags::IN)], None))?;
                match take(*bell) {
                    // Another was quicker.
                    Err(Errno::AGAIN) => {}
                    taken => return taken,
                }
            },
        }
    }
}

fn take(bell: BorrowedFd<'_>) -> Result<(), Errno> {
    retry_on_intr(|| rustix::io::read(bell, &mut [0; 8])).map(drop)
}
