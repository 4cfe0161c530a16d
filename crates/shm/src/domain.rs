//! Domains: the kernels whose threads use a segment, one of them or several.
//!
//! ```text
//!   slots    0 ............ n-1   n ........... 2n-1   2n ...          n = slots / domains
//!            +----------------+ +------------------+ +----
//!   domain   |       0        | |        1         | |  2
//!            +----------------+ +------------------+ +----
//!
//!   state    31                     1   0
//!           +------------------------+-------+
//!           |      incarnation       | alive |
//!           +------------------------+-------+
//! ```
//! A kernel proves the deaths of its own threads only, and wakes only its own sleepers. So each domain has slots of its
//! own, which it gives to its threads without asking the others, and an *agent*, a thread that stands for it:
//!
//! ```text
//!   wake one in another domain    its bit in `pending`;  ring that domain  -->  its agent takes the bits, wakes
//!   a thread has died             the agent copies OWNER_DIED into the segment's alive word;  rings all domains
//!   a domain has gone             whoever knows: state = not alive;  all its alive words;  rings all others
//! ```
//! Where nobody stands for a domain, its sleepers look by themselves every millisecond.

use core::fmt;
use core::mem::offset_of;
use std::path::{Path, PathBuf};

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use crosslock_core::{CpuId, Name};

use crate::alive::wake_all;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::mapping::SharedLayout;
use crate::segment::{Segment, SegmentContext};

/// Bits of `pending`: one for each slot, or for several where a domain has more.
const PENDING_BITS: usize = 512;

const ALIVE: u32 = 1;

/// One domain, as it lies in the segment.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct DomainRecord {
    pub(crate) state: AtomicU32,
    /// Where its doorbell is: the number of the ivshmem peer.
    pub(crate) peer: AtomicU32,
    /// Bits of the name of the thread that stands for it; 0: nobody.
    pub(crate) agent: AtomicU64,
    /// How often one of its threads registered, where it has no [`Home`](crate::home::Home).
    pub(crate) changes: AtomicU32,
    /// Not 0: one of its threads that has no doorbell wants all others to be rung.
    alarm: AtomicU32,
    reserved: [AtomicU64; 5],
    /// Slots whose sleepers are to be woken.
    pending: [AtomicU64; PENDING_BITS / 64],
}

const _: () = {
    assert!(offset_of!(DomainRecord, peer) == 4);
    assert!(offset_of!(DomainRecord, agent) == 8);
    assert!(offset_of!(DomainRecord, pending) == 64);
    assert!(size_of::<DomainRecord>() == 128 && align_of::<DomainRecord>() == 64);
};

// SAFETY: made of atomics.
unsafe impl SharedLayout for DomainRecord {}

impl DomainRecord {
    /// From now on its threads live and die by themselves.
    pub(crate) fn join(&self) {
        let state = self.state.load(Ordering::Acquire);
        let joined = state.wrapping_add(2) | ALIVE;
        if state & ALIVE == 0 {
            // An error says that another has done it.
            let _ = self.state.compare_exchange(state, joined, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whether it lives, and is that one.
    pub(crate) fn is_peer(&self, peer: u16) -> bool {
        self.is_alive() && self.peer.load(Ordering::Relaxed) == peer.into()
    }

    /// It is gone, with all its threads.
    fn leave(&self) {
        // Release: pairs with the Acquire in `is_alive`.
        self.state.fetch_and(!ALIVE, Ordering::Release);
    }

    pub(crate) fn is_alive(&self) -> bool {
        // Acquire: pairs with the Release of who found it gone; all that its threads did is seen.
        self.state.load(Ordering::Acquire) & ALIVE != 0
    }

    /// Asks for the sleeper of the domain's slot number `index` to be woken.
    fn mark_pending(&self, index: usize) {
        let bit = index % PENDING_BITS;
        // Release: pairs with the Acquire of the agent, which then sees the kick.
        self.pending[bit / 64].fetch_or(1 << (bit % 64), Ordering::Release);
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.pending.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// The slots of the domain, by number, whose sleepers are to be woken; they are not any more.
    pub(crate) fn take_pending(&self, slots: usize) -> impl Iterator<Item = usize> + '_ {
        let words = self.pending.iter().map(|word| {
            // A load first: most are 0, and an exchange takes the line from its writers.
            if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::Acquire) }
        });
        let words: Vec<u64> = words.collect();
        (0..slots).filter(move |index| {
            let bit = index % PENDING_BITS;
            words[bit / 64] & 1 << (bit % 64) != 0
        })
    }
}

/// Which domain of a segment a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainId {
    /// The one of that number: nobody serves the segment, people have agreed on it.
    Number(u32),
    /// The one that whoever serves the segment has given to this ivshmem peer.
    Peer(u16),
    /// The one that a process of this kernel, its agent, has already opened.
    Here,
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "number {number}"),
            Self::Peer(peer) => write!(f, "that of ivshmem peer {peer}"),
            Self::Here => f.write_str("that of this kernel, whose agent must run first,"),
        }
    }
}

/// Where the processes of one domain of a segment meet.
pub(crate) fn domain_home(directory: &Path, uuid: &[u8; 16], domain: usize) -> PathBuf {
    let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("crosslock-{uuid}-{domain}"))
}

/// How the threads of one domain make themselves heard in another: rings the ivshmem peer of that number, by that vector.
pub(crate) type Doorbell = dyn Fn(u16, u16) + Send + Sync;

/// The vector of agents. What they are wanted for stands in the segment.
const AGENT: u16 = 0;

impl SegmentContext {
    pub(crate) fn domain_table(&self) -> &[DomainRecord] {
        self.mapping().slice(self.geometry().domain_table, self.geometry().domains)
    }

    /// How many slots each domain has.
    pub(crate) fn slots_of_each(&self) -> usize {
        self.geometry().slots / self.geometry().domains
    }

    /// The number of `slot` in its domain.
    pub(crate) fn index(&self, slot: CpuId) -> usize {
        slot.index() % self.slots_of_each()
    }

    /// Whether it is proven that `domain` is gone, with all its threads.
    pub(crate) fn has_gone(&self, domain: usize) -> bool {
        self.domain_table().get(domain).is_none_or(|record| !record.is_alive())
    }

    /// Which domain `slot` is of.
    pub(crate) fn domain_of(&self, slot: CpuId) -> usize {
        slot.index() / self.slots_of_each()
    }

    /// Whether `slot` is of this process's kernel.
    #[inline]
    pub(crate) fn is_near(&self, slot: CpuId) -> bool {
        self.geometry().domains == 1 || self.domain_of(slot) == self.domain()
    }

    /// The slots of a domain.
    pub(crate) fn slots_of(&self, domain: usize) -> impl Iterator<Item = CpuId> + use<> {
        let each = self.slots_of_each();
        (domain * each..(domain + 1) * each).filter_map(CpuId::new)
    }

    /// Who stands for `domain`, if that one lives.
    pub(crate) fn agent_of(&self, domain: usize) -> Option<Name> {
        let agent = self.domain_table().get(domain)?.agent.load(Ordering::Acquire);
        Name::from_bits(agent).filter(|&agent| !self.has_died(agent))
    }

    /// Wakes who sleeps in `slot`, on the bell of that vector; where there is none, or this process has no doorbell, the agent of its
    /// domain does.
    pub(crate) fn wake_far(&self, slot: CpuId, vector: u16) {
        let Some(record) = self.domain_table().get(self.domain_of(slot)) else { return };
        if vector == AGENT || self.doorbell().is_none() {
            record.mark_pending(self.index(slot));
            self.ring(record, AGENT);
        } else {
            self.ring(record, vector);
        }
    }

    /// Has the agent of this domain wake who sleeps in `slot` of it.
    pub(crate) fn have_woken(&self, slot: CpuId) {
        self.domain_table()[self.domain()].mark_pending(self.index(slot));
        self.tell_agent();
    }

    /// Rings all other domains that live.
    pub(crate) fn ring_all(&self) {
        if self.doorbell().is_none() {
            self.domain_table()[self.domain()].alarm.store(1, Ordering::Release);
        }
        self.others().for_each(|record| self.ring(record, AGENT));
    }

    /// On behalf of threads of this domain that have no doorbell: rings those whom they want to be rung.
    pub(crate) fn relay(&self) {
        if self.doorbell().is_none() {
            return;
        }
        if self.domain_table()[self.domain()].alarm.swap(0, Ordering::Acquire) != 0 {
            self.ring_all();
        } else {
            self.others().filter(|record| record.has_pending()).for_each(|record| self.ring(record, AGENT));
        }
    }

    /// The other domains that live.
    fn others(&self) -> impl Iterator<Item = &DomainRecord> {
        let others = self.domain_table().iter().enumerate().filter(|(domain, _)| *domain != self.domain());
        others.map(|(_, record)| record).filter(|record| record.is_alive())
    }

    /// The word on which the agent of this domain sleeps, besides the alive words.
    pub(crate) fn changes(&self) -> &AtomicU32 {
        self.home().map_or_else(|| &self.domain_table()[self.domain()].changes, Home::changes)
    }

    /// By a thread of this domain that has registered, whose death is to be watched for, or that wants another domain to be
    /// rung.
    pub(crate) fn tell_agent(&self) {
        if self.geometry().domains > 1 {
            self.changes().fetch_add(1, Ordering::Release);
            wake_all(self.changes());
        }
    }

    /// By the creator of a new home: who is in this domain's slots died with an older one.
    pub(crate) fn settle(&self) {
        let is_used = |slot: &CpuId| self.holder_of(*slot).is_some();
        self.slots_of(self.domain()).filter(is_used).for_each(|slot| self.retire(slot));
        self.domain_table()[self.domain()].join();
    }

    fn ring(&self, record: &DomainRecord, vector: u16) {
        let Some(doorbell) = self.doorbell() else {
            // The agent has one.
            self.tell_agent();
            return;
        };
        if let Ok(peer) = u16::try_from(record.peer.load(Ordering::Relaxed)) {
            doorbell(peer, vector);
        }
    }
}

/// A kernel that uses a segment, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainInfo {
    /// Its number.
    pub domain: u32,
    /// Whether it lives, as far as whoever serves the segment knows.
    pub is_alive: bool,
    /// The ivshmem peer that it is.
    pub peer: u32,
    /// Who stands for it, if that one lives.
    pub agent: Option<Name>,
}

impl Segment {
    /// Which domain this process's kernel is.
    #[must_use]
    pub fn domain(&self) -> usize {
        self.inner().domain()
    }

    /// All domains, by number.
    #[must_use]
    pub fn domains(&self) -> Vec<DomainInfo> {
        let cx = self.inner();
        let info = |(domain, record): (u32, &DomainRecord)| DomainInfo {
            domain,
            is_alive: record.is_alive(),
            peer: record.peer.load(Ordering::Relaxed),
            agent: cx.agent_of(domain as usize),
        };
        (0..).zip(cx.domain_table()).map(info).collect()
    }

    /// Gives a kernel that has just come, the ivshmem peer of that number, a domain that nobody is in. Only for who
    /// serves the segment, one thread. `None` where there is none.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn admit(&self, peer: u16) -> Result<Option<u32>> {
        let cx = self.context()?;
        let free = (1..).zip(&cx.domain_table()[1..]).find(|(_, record)| !record.is_alive());
        let Some((domain, record)) = free else { return Ok(None) };
        // Those of the last one are dead; their names stay so when the domain lives again.
        let is_used = |slot: &CpuId| cx.holder_of(*slot).is_some();
        cx.slots_of(domain as usize).filter(is_used).for_each(|slot| cx.retire(slot));
        record.agent.store(0, Ordering::Relaxed);
        record.peer.store(peer.into(), Ordering::Relaxed);
        record.join();
        Ok(Some(domain))
    }

    /// Says that a domain is gone with all its threads: the one of a virtual machine that has ended. Those who wait for one of
    /// them are woken, near and far. For who knows it: whoever is in the domain still may go on as if it had its locks.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSuchDomain`].
    pub fn dismiss(&self, domain: u32) -> Result<()> {
        let cx = self.context()?;
        let record = cx.domain_table().get(domain as usize).ok_or(Error::NoSuchDomain {
            segment: cx.label().into(),
            domain: DomainId::Number(domain),
            domains: cx.domain_table().len(),
        })?;
        record.leave();
        for slot in cx.slots_of(domain as usize) {
            if let Some(word) = cx.published_word(slot) {
                cx.mark_word_dead(word);
            }
        }
        cx.ring_all();
        Ok(())
    }
}
