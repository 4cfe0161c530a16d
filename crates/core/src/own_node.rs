//! The node that a CPU has while it waits.

use crate::context::Context;
use crate::event::Event;
use crate::per_cpu::{CpuId, Node, NodeId, PerCpu};
use crate::primitive::{AtomicU32, Ordering, signal_fence};

/// A node of the running CPU, taken for one wait and given back on drop.
///
/// Nodes are taken and given back like a stack. An interrupt that takes the next one between the load
/// and the store of `depth` gives it back before it returns, so neither needs to be one atomic step; and
/// nobody else writes `depth`. What an interrupt must find in order is kept so by [`signal_fence`]: the node is
/// ours before it is written, and out of every queue before it is given back.
#[derive(Debug)]
pub(crate) struct OwnNode<'a> {
    pub(crate) node: &'a Node,
    pub(crate) id: NodeId,
    depth: &'a AtomicU32,
}

impl<'a> OwnNode<'a> {
    /// `None` where the CPU has no number here or all of its nodes are in use; counted.
    pub(crate) fn take<C: Context>(cx: &'a C) -> Option<Self> {
        let own = Self::next(cx.per_cpu(), cx.cpu());
        let event = own.as_ref().map_or(Some(Event::LockNoNode), |own| Event::use_node(own.id.index()));
        if let Some(event) = event {
            cx.count(event, 1);
        }
        own
    }

    /// A node that is queued already, as if this thread had taken it.
    #[cfg(all(test, loom))]
    pub(crate) fn queued(cpus: &'a [PerCpu], id: NodeId) -> Self {
        let PerCpu { nodes, depth, .. } = &cpus[id.cpu().index()];
        Self { node: &nodes[id.index()], id, depth }
    }

    fn next(cpus: &'a [PerCpu], cpu: Option<CpuId>) -> Option<Self> {
        let cpu = cpu?;
        let PerCpu { nodes, depth, .. } = cpus.get(cpu.index())?;
        let index = depth.load(Ordering::Relaxed);
        let node = nodes.get(index as usize)?;
        let id = NodeId::new(cpu, index as usize)?;
        depth.store(index + 1, Ordering::Relaxed);
        signal_fence();
        node.next.store(0, Ordering::Relaxed);
        node.locked.store(0, Ordering::Relaxed);
        node.state.store(0, Ordering::Relaxed);
        Some(Self { node, id, depth })
    }
}

impl OwnNode<'_> {
    /// Whether the predecessor has handed over the head of the queue.
    #[inline]
    pub(crate) fn is_head(&self) -> bool {
        // Acquire: [C] of `qspinlock::queue`.
        self.node.locked.load(Ordering::Acquire) != 0
    }
}

impl Drop for OwnNode<'_> {
    fn drop(&mut self) {
        signal_fence();
        #[expect(clippy::cast_possible_truncation, reason = "an index below NODES_PER_CPU")]
        self.depth.store(self.id.index() as u32, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::per_cpu::NODES_PER_CPU;

    #[test]
    fn a_fifth_node_is_not_to_be_had() {
        let cpus = [PerCpu::new()];
        let cpu = CpuId::new(0);
        let held: [_; NODES_PER_CPU] = core::array::from_fn(|_| OwnNode::next(&cpus, cpu).unwrap());
        assert!(OwnNode::next(&cpus, cpu).is_none());
        assert!(OwnNode::next(&cpus, CpuId::new(1)).is_none(), "no such CPU");
        for node in held.into_iter().rev() {
            drop(node);
        }
        assert_eq!(cpus[0].depth(), 0);
    }
}
