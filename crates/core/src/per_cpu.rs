//! Queue nodes: four for each CPU, named by index so that every mapping of them agrees.
//!
//! ```text
//! NodeId, 16 bits      15            2 1     0
//!                     +---------------+-------+
//!                     |     cpu + 1   | index |     0 = no node
//!                     +---------------+-------+
//! ```
//! A CPU needs a node only while it waits, and waits nest at most four deep: task, softirq, hardirq,
//! NMI. In user space a CPU is a thread.

use core::num::NonZeroU16;

use crate::error::Corrupted;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, const_new};

/// Nodes of each CPU: one for each context that can interrupt the one below it.
pub const NODES_PER_CPU: usize = 4;

/// Number of a CPU: in a kernel the CPU's, in user space that of a thread's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuId(u16);

impl CpuId {
    /// The highest number that a lock word can name: 14 bits hold `cpu + 1`.
    pub const MAX: Self = Self((1 << 14) - 2);

    /// `None` where `cpu` is above [`CpuId::MAX`].
    ///
    /// ```
    /// use crosslock_core::CpuId;
    /// assert_eq!(CpuId::new(3).unwrap().index(), 3);
    /// assert!(CpuId::new(CpuId::MAX.index() + 1).is_none());
    /// ```
    #[must_use]
    pub const fn new(cpu: usize) -> Option<Self> {
        if cpu <= Self::MAX.0 as usize {
            #[expect(clippy::cast_possible_truncation, reason = "compared with MAX above")]
            Some(Self(cpu as u16))
        } else {
            None
        }
    }

    /// The number, as an index into per-CPU arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names one node of one CPU; what the tail of a lock word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(NonZeroU16);

impl NodeId {
    const INDEX_BITS: u32 = 2;
    const INDEX_MASK: u16 = (1 << Self::INDEX_BITS) - 1;

    /// Node `index` (0 to 3) of `cpu`.
    #[must_use]
    pub const fn new(cpu: CpuId, index: usize) -> Option<Self> {
        if index >= NODES_PER_CPU {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below NODES_PER_CPU")]
        match NonZeroU16::new((cpu.0 + 1) << Self::INDEX_BITS | index as u16) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// Decodes what [`NodeId::bits`] gave; `None` is "no node".
    ///
    /// # Errors
    /// [`Corrupted::NoSuchNode`] where the bits name no CPU.
    pub const fn from_bits(bits: u32) -> Result<Option<Self>, Corrupted> {
        if bits == 0 {
            return Ok(None);
        }
        if bits > u16::MAX as u32 || bits >> Self::INDEX_BITS == 0 {
            return Err(Corrupted::NoSuchNode { bits });
        }
        #[expect(clippy::cast_possible_truncation, reason = "compared with u16::MAX above")]
        match NonZeroU16::new(bits as u16) {
            Some(bits) => Ok(Some(Self(bits))),
            None => Ok(None),
        }
    }

    /// The 16 bits that name this node, never 0.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.get() as u32
    }

    /// The CPU whose node it is.
    #[must_use]
    pub const fn cpu(self) -> CpuId {
        CpuId((self.0.get() >> Self::INDEX_BITS) - 1)
    }

    /// Which of the CPU's four it is.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0.get() & Self::INDEX_MASK) as usize
    }
}

/// One waiter's place in a queue: alone on its cache line, because its owner spins on it.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Node {
    /// Bits of the successor's [`NodeId`]; 0 until it has linked itself.
    pub(crate) next: AtomicU32,
    /// 1 once the predecessor has handed the head of the queue over.
    pub(crate) locked: AtomicU32,
    /// Paravirtual queues only: running (0), halted or hashed; see `pvqspinlock`.
    pub(crate) state: AtomicU32,
}

impl Node {
    const_new! { fn new() -> Self {
        Self { next: AtomicU32::new(0), locked: AtomicU32::new(0), state: AtomicU32::new(0) }
    } }
}

/// What each CPU brings to every queue: its nodes, and the word on which it is woken.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct PerCpu {
    pub(crate) nodes: [Node; NODES_PER_CPU],
    /// How many nodes are in use; written by this CPU alone, read by who looks for the dead.
    pub(crate) depth: AtomicU32,
    kicks: Kicks,
}

/// Alone on its cache line: others write it.
#[repr(C, align(64))]
#[derive(Debug)]
struct Kicks {
    count: AtomicU32,
    /// When the last kick was sent, in the kicker's nanoseconds; 0 once the sleeper has read it.
    at_ns: AtomicU64,
}

impl PerCpu {
    const_new! {
        /// All four nodes free, no kick pending.
        pub fn new() -> Self {
            Self {
                nodes: [Node::new(), Node::new(), Node::new(), Node::new()],
                depth: AtomicU32::new(0),
                kicks: Kicks { count: AtomicU32::new(0), at_ns: AtomicU64::new(0) },
            }
        }
    }

    /// A word that counts the kicks sent to this CPU, for platforms that wait on memory (futex).
    ///
    /// A sleeper reads it, checks its condition, and sleeps while it is unchanged; a kick adds 1 and
    /// wakes. So a kick that comes between check and sleep is not lost.
    #[must_use]
    pub fn kicks(&self) -> &AtomicU32 {
        &self.kicks.count
    }

    pub(crate) fn kicked_at(&self) -> &AtomicU64 {
        &self.kicks.at_ns
    }

    /// How many of the four nodes are queued now.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }
}

impl Default for PerCpu {
    fn default() -> Self {
        Self::new()
    }
}

/// The node that `id` names in `cpus`.
pub(crate) fn node(cpus: &[PerCpu], id: NodeId) -> Result<&Node, Corrupted> {
    let cpu = cpus.get(id.cpu().index()).ok_or(Corrupted::NoSuchNode { bits: id.bits() })?;
    cpu.nodes.get(id.index()).ok_or(Corrupted::NoSuchNode { bits: id.bits() })
}

/// Refuses a predecessor that does not exist, or that is the node itself: who linked itself behind it would wait for
/// ever, and might be linked to by others.
pub(crate) fn check_predecessor(cpus: &[PerCpu], before: NodeId, mine: NodeId) -> Result<(), Corrupted> {
    if before == mine {
        return Err(Corrupted::NoSuchNode { bits: before.bits() });
    }
    node(cpus, before).map(|_| ())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_round_trip() {
        for cpu in [0, 1, 77, CpuId::MAX.index()] {
            for index in 0..NODES_PER_CPU {
                let id = NodeId::new(CpuId::new(cpu).unwrap(), index).unwrap();
                assert_eq!(NodeId::from_bits(id.bits()), Ok(Some(id)));
                assert_eq!((id.cpu().index(), id.index()), (cpu, index));
            }
        }
    }

    #[test]
    fn bits_that_name_no_cpu_are_refused() {
        assert_eq!(NodeId::from_bits(0), Ok(None));
        for bits in [1, 2, 3, 0x1_0000] {
            assert_eq!(NodeId::from_bits(bits), Err(Corrupted::NoSuchNode { bits }));
        }
    }
}
