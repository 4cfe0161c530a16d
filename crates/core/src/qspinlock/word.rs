//! The lock word of the queued spin locks, and one helper for each transition of it.

use core::fmt;

use crate::error::Corrupted;
use crate::per_cpu::{NodeId, PerCpu, check_predecessor};
use crate::primitive::{AtomicU32, Ordering, const_new};

const LOCKED_BITS: u32 = 8;
const PENDING_SHIFT: u32 = LOCKED_BITS;
const PENDING_BITS: u32 = 8;
const TAIL_SHIFT: u32 = PENDING_SHIFT + PENDING_BITS;

const LOCKED_MASK: u32 = (1 << LOCKED_BITS) - 1;
const PENDING: u32 = 1 << PENDING_SHIFT;
const PENDING_MASK: u32 = ((1 << PENDING_BITS) - 1) << PENDING_SHIFT;
const TAIL_MASK: u32 = !(LOCKED_MASK | PENDING_MASK);

/// Locked byte: nobody owns the lock.
pub(crate) const FREE: u32 = 0;
/// Locked byte: owned.
pub(crate) const LOCKED: u32 = 1;
/// Locked byte: owned, and the queue head is asleep: the unlocker must look it up in the hash and kick it.
pub(crate) const SLOW: u32 = 3;

/// A value of the lock word: `(tail, pending, locked)`.
///
/// ```
/// let word = crosslock_core::QWord::from_bits(0x0004_0101);
/// assert_eq!(word.to_string(), "(cpu 0 node 0, pending 1, locked 1)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QWord(u32);

impl QWord {
    /// What the 32 bits say.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The locked byte: 0 free, 1 locked, 3 locked with a sleeping queue head.
    #[must_use]
    pub const fn locked(self) -> u32 {
        self.0 & LOCKED_MASK
    }

    /// Whether somebody waits on the pending bit (or, paravirtual, forbids stealing with it).
    #[must_use]
    pub const fn pending(self) -> bool {
        self.0 & PENDING_MASK != 0
    }

    /// The last waiter in the queue.
    ///
    /// # Errors
    /// [`Corrupted::NoSuchNode`] where the tail names no CPU.
    pub const fn tail(self) -> Result<Option<NodeId>, Corrupted> {
        NodeId::from_bits(self.0 >> TAIL_SHIFT)
    }

    pub(crate) const fn has_tail(self) -> bool {
        self.0 & TAIL_MASK != 0
    }

    pub(crate) const fn is_tail(self, id: NodeId) -> bool {
        self.0 >> TAIL_SHIFT == id.bits()
    }

    /// Nobody owns the lock and nobody is about to: free for the queue head.
    pub(crate) const fn is_open(self) -> bool {
        self.0 & (LOCKED_MASK | PENDING_MASK) == 0
    }

    /// Anybody but the owner is there.
    pub(crate) const fn is_contended(self) -> bool {
        self.0 & !LOCKED_MASK != 0
    }
}

impl fmt::Display for QWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tail() {
            Ok(None) => f.write_str("(no tail")?,
            Ok(Some(id)) => write!(f, "(cpu {} node {}", id.cpu().index(), id.index())?,
            Err(_) => write!(f, "(bad tail {:#06x}", self.0 >> TAIL_SHIFT)?,
        }
        write!(f, ", pending {}, locked {})", u8::from(self.pending()), self.locked())
    }
}

impl fmt::Debug for QWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} {self}", self.0)
    }
}

/// The word itself: every change of it is one of these methods, each named after its transition.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct LockWord(AtomicU32);

impl LockWord {
    const_new! { pub(crate) fn new(bits: u32) -> Self { Self(AtomicU32::new(bits)) } }

    #[inline]
    pub(crate) fn atomic(&self) -> &AtomicU32 {
        &self.0
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> QWord {
        QWord(self.0.load(order))
    }

    #[inline]
    fn exchange(&self, from: QWord, to: u32, order: Ordering) -> Result<(), QWord> {
        let done = self.0.compare_exchange(from.0, to, order, Ordering::Relaxed).map_err(QWord);
        done.map(|_| trace(from, QWord(to)))
    }

    /// `0,0,0 -> 0,0,1`
    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        self.exchange(QWord(FREE), LOCKED, Ordering::Acquire).is_ok()
    }

    /// `0,0,0 -> 0,0,1` for a newcomer, at the least cost: only the locked byte is compared and exchanged.
    ///
    /// Where others wait, it may for a moment be `*,*,0 -> *,*,1`, which is taken back: who comes last does not
    /// pass by. So everybody else must take the lock by an exchange that can fail.
    #[inline]
    pub(crate) fn try_lock_low_byte(&self) -> bool {
        #[cfg(not(any(loom, shuttle)))]
        let done = self.0.set_low_byte_acquire();
        #[cfg(any(loom, shuttle))]
        let done = self.0.set_low_byte_acquire().is_ok_and(|from| {
            trace(QWord(from), QWord(from | LOCKED));
            true
        });
        if done && !self.0.high_bytes_are_zero() {
            self.unlock();
            return false;
        }
        done
    }

    /// `n,0,0 -> n,0,1`: past the queue, if there is one. `from` is open.
    #[inline]
    pub(crate) fn try_steal(&self, from: QWord) -> bool {
        self.exchange(from, from.0 | LOCKED, Ordering::Acquire).is_ok()
    }

    /// `*,*,y -> *,1,y`; gives the value before.
    #[inline]
    pub(crate) fn set_pending(&self) -> QWord {
        self.or(PENDING, Ordering::Relaxed)
    }

    /// `*,1,y -> *,0,y`
    #[inline]
    pub(crate) fn clear_pending(&self) {
        let from = QWord(self.0.fetch_and(!PENDING_MASK, Ordering::Relaxed));
        trace(from, QWord(from.0 & !PENDING_MASK));
    }

    /// `*,1,0 -> *,0,1`, in one step, by the one who set pending. `from` is not locked.
    #[inline]
    pub(crate) fn try_clear_pending_set_locked(&self, from: QWord) -> bool {
        self.exchange(from, from.0 & !PENDING_MASK | LOCKED, Ordering::Acquire).is_ok()
    }

    /// `p,x,y -> n,x,y`; gives the tail before.
    ///
    /// Release publishes the node's initial state; Acquire makes the predecessor's visible. A tail that is not in
    /// `cpus`, or is the node itself, is refused before it can do harm.
    #[inline]
    pub(crate) fn exchange_tail(&self, cpus: &[PerCpu], id: NodeId) -> Result<Option<NodeId>, Corrupted> {
        let mut from = self.load(Ordering::Relaxed);
        loop {
            let before = from.tail()?;
            if let Some(before) = before {
                check_predecessor(cpus, before, id)?;
            }
            let to = from.0 & !TAIL_MASK | id.bits() << TAIL_SHIFT;
            match self.exchange(from, to, Ordering::AcqRel) {
                Ok(()) => return Ok(before),
                Err(found) => from = found,
            }
        }
    }

    /// `n,0,0 -> 0,0,1` if the queue head `id` is also its tail, else `n,0,0 -> n,0,1`; gives the word as it is
    /// then. `from` is open.
    #[inline]
    pub(crate) fn try_lock_as_head(&self, from: QWord, id: NodeId) -> Option<QWord> {
        let to = if from.is_tail(id) { LOCKED } else { from.0 | LOCKED };
        self.exchange(from, to, Ordering::Acquire).is_ok().then_some(QWord(to))
    }

    /// `n,0,1 -> 0,0,1`: the queue head, who owns the lock, is also its tail.
    #[inline]
    pub(crate) fn try_clear_tail(&self, from: QWord) -> bool {
        self.exchange(from, from.0 & !TAIL_MASK, Ordering::Relaxed).is_ok()
    }

    fn or(&self, bits: u32, order: Ordering) -> QWord {
        let from = QWord(self.0.fetch_or(bits, order));
        trace(from, QWord(from.0 | bits));
        from
    }

    /// `*,x,1 -> *,x,3`, or `*,x,0 -> *,x,3`: gives the locked byte that was there.
    ///
    /// AcqRel: publishes the hash entry to the unlocker that finds SLOW, and acquires if it found FREE.
    #[inline]
    pub(crate) fn set_slow(&self) -> u32 {
        self.or(SLOW, Ordering::AcqRel).locked()
    }

    /// `*,x,3 -> *,x,1`, by the owner.
    #[inline]
    pub(crate) fn clear_slow(&self) {
        let mask = !(SLOW & !LOCKED);
        let from = QWord(self.0.fetch_and(mask, Ordering::Relaxed));
        trace(from, QWord(from.0 & mask));
    }

    /// `*,x,* -> *,x,0`: the native release, a plain byte store where the architecture has one.
    #[inline]
    pub(crate) fn unlock(&self) {
        #[cfg(not(any(loom, shuttle)))]
        self.0.clear_low_byte_release();
        #[cfg(any(loom, shuttle))]
        {
            let from = QWord(self.0.clear_low_byte_release());
            trace(from, QWord(from.0 & !LOCKED_MASK));
        }
    }

    /// `*,x,1 -> *,x,0`, else the value that was there, whose locked byte is not 1.
    #[inline]
    pub(crate) fn try_unlock(&self) -> Result<(), QWord> {
        let mut from = QWord(LOCKED);
        // Usually nobody waits and the first exchange is the last. Only others' changes of tail and
        // pending make it fail and turn again.
        loop {
            match self.exchange(from, from.0 & !LOCKED_MASK, Ordering::Release) {
                Ok(()) => return Ok(()),
                Err(found) if found.locked() == LOCKED => from = found,
                Err(found) => return Err(found),
            }
        }
    }
}

/// Shows each change of a lock word to the model checkers, which compare them with the state diagram.
#[inline]
fn trace(from: QWord, to: QWord) {
    #[cfg(any(loom, shuttle))]
    super::transitions::record(from, to);
    #[cfg(not(any(loom, shuttle)))]
    let _ = (from, to);
}
