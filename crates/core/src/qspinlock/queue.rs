//! The MCS queue behind the lock word, shared by the native and the paravirtual lock.
//!
//! ```text
//!   word.tail ----------------------------------------+
//!                                                     v
//!   head: waits for the lock      +------+  next   +------+
//!   the others: for `locked`      | node |-------->| node |      node.locked = 1 makes it the head
//!                                 +------+         +------+
//! ```
//! # Memory order
//! ```text
//!   joins                            predecessor / head
//!   ------------------------------   ----------------------------------------
//!   init node                        init node
//!   exchange tail (AcqRel)  <------  exchange tail (AcqRel)     [A] node initialised before linked to
//!   before.next = me (Release) --->  read next (Acquire)        [B] next initialised before handed to
//!   read locked (Acquire)   <------  next.locked = 1 (Release)  [C] the lock, and the order of holders
//! ```

use crate::context::Context;
use crate::error::Corrupted;
use crate::event::Event;
use crate::own_node::OwnNode;
use crate::per_cpu::{Node, NodeId, node};
use crate::primitive::Ordering;
use crate::qspinlock::word::{LockWord, QWord};

/// How the waiters in the queue wait: spinning, or suspended by a hypervisor.
pub(crate) trait Waiting<C: Context> {
    /// Last chance before a place in the queue is taken.
    fn take_before_queuing(word: &LockWord, cx: &C) -> bool;

    /// Returns once `mine` is the head of the queue. `before` is the node ahead.
    fn wait_for_turn(cx: &C, mine: &OwnNode<'_>, before: NodeId) -> Result<(), Corrupted>;

    /// Returns once the head has the lock, with the word as it left it.
    fn wait_for_lock(word: &LockWord, cx: &C, mine: &OwnNode<'_>) -> Result<QWord, Corrupted>;

    /// By the new owner, after `next` has become the head.
    fn new_head(_word: &LockWord, _cx: &C, _next: &Node, _id: NodeId) -> Result<(), Corrupted> {
        Ok(())
    }
}

pub(crate) fn acquire_in_queue<C: Context, W: Waiting<C>>(word: &LockWord, cx: &C) -> Result<(), Corrupted> {
    let cpus = cx.per_cpu();
    let Some(mine) = OwnNode::take(cx) else {
        while !word.try_lock() {
            cx.relax();
        }
        return Ok(());
    };
    if W::take_before_queuing(word, cx) {
        return Ok(());
    }

    cx.count(Event::LockSlowpath, 1);
    let before = word.exchange_tail(cpus, mine.id)?;
    let result = take_turn::<C, W>(word, cx, &mine, before);
    if result.is_err() {
        // Others may point at the node from now on.
        core::mem::forget(mine);
    }
    result
}

/// From the end of the queue, behind `before`, to the lock.
fn take_turn<C: Context, W: Waiting<C>>(
    word: &LockWord,
    cx: &C,
    mine: &OwnNode<'_>,
    before: Option<NodeId>,
) -> Result<(), Corrupted> {
    if let Some(before) = before {
        node(cx.per_cpu(), before)?.next.store(mine.id.bits(), Ordering::Release); // [B]
        W::wait_for_turn(cx, mine, before)?;
    }
    let owned = W::wait_for_lock(word, cx, mine)?;
    if !owned.has_tail() || owned.is_tail(mine.id) && word.try_clear_tail(owned) {
        return Ok(());
    }

    // Somebody is behind.
    let id = successor(cx, mine.node)?;
    let next = node(cx.per_cpu(), id)?;
    next.locked.store(1, Ordering::Release); // [C]
    W::new_head(word, cx, next, id)
}

fn successor<C: Context>(cx: &C, mine: &Node) -> Result<NodeId, Corrupted> {
    loop {
        // [B]
        if let Some(id) = NodeId::from_bits(mine.next.load(Ordering::Acquire))? {
            return Ok(id);
        }
        cx.relax();
    }
}
