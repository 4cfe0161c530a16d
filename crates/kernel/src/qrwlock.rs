//! The queued reader-writer lock of Linux: readers and writers who must wait queue on one spin lock, so neither
//! starves the other.
//!
//! ```text
//!   word   31  30             9    8        7          0
//!         +---+----------------+---------+------------+
//!         | F |    readers     | waiting |   writer   |     writer: 0, or 255 while one owns the lock
//!         +---+----------------+---------+------------+
//!           too many readers
//!
//!   readers   (n,0,0) --add one--> (n+1,0,0) --subtract one--> (n,0,0)
//!             else: take it back, take the queue lock, add one, wait until no writer owns, pass the queue lock on
//!             in a handler: leave it added, wait until no writer owns; writers that wait are passed by
//!
//!   writer    (0,0,0) --------------------------------------> (0,0,255) --> (*,*,0)
//!             else: take the queue lock
//!             (n,0,y) --> (n,1,y) -- readers leave --> (0,1,0) --> (0,0,255); pass the queue lock on
//! ```
//! A reader in a handler must not queue: the code that it has interrupted may be a reader, whom a writer ahead in the
//! queue waits for.
//!
//! # Memory order
//! Every change of the word is one atomic read-modify-write, so each Release heads a release sequence that all
//! later values belong to.
//! ```text
//!   reader                              writer
//!   --------------------------------    ---------------------------------
//!   add one (Acquire), or               writer = 0      (Release)   [A]
//!   read "no writer" (Acquire)   [A]
//!   subtract one (Release)       [B]    (0,_,0) -> (0,0,255) (Acquire)   [A] [B]
//! ```
//! After Linux kernel/locking/qrwlock.c, whose writer also stores a byte to release. `tests/loom.rs` explores the orders
//! with loom.

use core::fmt;

use crosslock_core::primitive::{AtomicU32, Ordering};

const WRITER_MASK: u32 = 0xff;
const WRITER: u32 = 0xff;
const WAITING: u32 = 1 << 8;
const READER: u32 = 1 << 9;
/// Set once there are 2^22 readers: no machine has so many, so guards are being leaked.
const FULL: u32 = 1 << 31;
/// None of these: a reader may enter.
const CLOSED_MASK: u32 = WRITER_MASK | WAITING | FULL;

/// The spin lock on which waiters queue.
pub(crate) trait Queue {
    /// Why it cannot be had.
    type Error;

    fn acquire(&self) -> Result<(), Self::Error>;

    /// # Safety
    /// The caller owns it.
    unsafe fn release(&self) -> Result<(), Self::Error>;

    /// One turn of a spin loop.
    fn relax(&self);
}

/// Why a reader or writer does not get the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<E> {
    Queue(E),
    TooManyReaders,
}

/// Readers and writers, as the word says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RwWord(u32);

impl fmt::Debug for RwWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bits) = *self;
        let (readers, waiting) = ((bits & !FULL) / READER, u8::from(bits & WAITING != 0));
        write!(f, "(readers {readers}, waiting {waiting}, writer {})", u8::from(bits & WRITER_MASK != 0))
    }
}

/// The lock without its queue.
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct RwLockWord(AtomicU32);

impl fmt::Debug for RwLockWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RwWord(self.0.load(Ordering::Relaxed)).fmt(f)
    }
}

impl RwLockWord {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !WAITING != 0
    }

    pub(crate) fn is_write_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WRITER_MASK != 0
    }

    pub(crate) fn writer_waits(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WAITING != 0
    }

    /// `(n,0,0) -> (n+1,0,0)`; else one has been added all the same.
    #[inline]
    fn enter(&self) -> bool {
        self.0.fetch_add(READER, Ordering::Acquire) & CLOSED_MASK == 0 // [A]
    }

    #[inline]
    fn take_back(&self) {
        self.0.fetch_add(READER.wrapping_neg(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & CLOSED_MASK != 0 {
            return false;
        }
        let entered = self.enter();
        if !entered {
            self.take_back();
        }
        entered
    }

    #[inline]
    pub(crate) fn read<Q: Queue>(
        &self,
        queue: &Q,
        in_handler: impl FnOnce() -> bool,
    ) -> Result<(), Refusal<Q::Error>> {
        if self.enter() { Ok(()) } else { self.read_slow(queue, in_handler()) }
    }

    /// One has been added already.
    #[cold]
    fn read_slow<Q: Queue>(&self, queue: &Q, in_handler: bool) -> Result<(), Refusal<Q::Error>> {
        if self.0.load(Ordering::Relaxed) & FULL != 0 {
            self.take_back();
            return Err(Refusal::TooManyReaders);
        }
        if in_handler {
            self.wait_for_writer(queue);
            return Ok(());
        }
        self.take_back();
        queue.acquire().map_err(Refusal::Queue)?;
        // Relaxed: the look at the writer below acquires.
        self.0.fetch_add(READER, Ordering::Relaxed);
        self.wait_for_writer(queue);
        // SAFETY: acquired above.
        unsafe { queue.release() }.map_err(Refusal::Queue)
    }

    fn wait_for_writer<Q: Queue>(&self, queue: &Q) {
        while self.0.load(Ordering::Acquire) & WRITER_MASK != 0 {
            // [A]
            queue.relax();
        }
    }

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        self.become_writer(0)
    }

    /// `(0,x,0) -> (0,0,255)`
    #[inline]
    fn become_writer(&self, from: u32) -> bool {
        self.0.compare_exchange(from, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok() // [A] [B]
    }

    #[inline]
    pub(crate) fn write<Q: Queue>(&self, queue: &Q) -> Result<(), Refusal<Q::Error>> {
        if self.try_write() { Ok(()) } else { self.write_slow(queue) }
    }

    #[cold]
    fn write_slow<Q: Queue>(&self, queue: &Q) -> Result<(), Refusal<Q::Error>> {
        queue.acquire().map_err(Refusal::Queue)?;
        if !self.try_write() {
            // Only the owner of the queue sets it: nobody else waits here.
            self.0.fetch_or(WAITING, Ordering::Relaxed);
            while self.0.load(Ordering::Relaxed) != WAITING || !self.become_writer(WAITING) {
                queue.relax();
            }
        }
        // SAFETY: acquired above.
        unsafe { queue.release() }.map_err(Refusal::Queue)
    }

    /// # Safety
    /// The caller is a reader.
    #[inline]
    pub(crate) unsafe fn read_unlock(&self) {
        self.0.fetch_add(READER.wrapping_neg(), reader_release()); // [B]
    }

    /// # Safety
    /// The caller is the writer.
    #[inline]
    pub(crate) unsafe fn write_unlock(&self) {
        self.0.clear_low_byte_release(); // [A]
    }
}

/// The same on a uniprocessor: loads and stores. Whoever finds the lock closed would wait for itself.
#[cfg(not(any(loom, shuttle)))]
impl RwLockWord {
    /// Only handlers change the word meanwhile, and they leave it as they found it.
    fn change_if(&self, closed: u32, by: u32) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let open = seen & closed == 0;
        if open {
            self.0.store(seen + by, Ordering::Relaxed);
            crosslock_core::primitive::signal_fence();
        }
        open
    }

    #[inline]
    pub(crate) fn try_read_up(&self) -> bool {
        self.change_if(CLOSED_MASK, READER)
    }

    #[inline]
    pub(crate) fn try_write_up(&self) -> bool {
        self.change_if(!0, WRITER)
    }

    /// # Safety
    /// The caller is a reader (`by`: [`RwLockWord::READER_UP`]), or the writer.
    #[inline]
    pub(crate) unsafe fn unlock_up(&self, by: u32) {
        crosslock_core::primitive::signal_fence();
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    pub(crate) const READER_UP: u32 = READER;
    pub(crate) const WRITER_UP: u32 = WRITER;

    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) & FULL != 0
    }
}

/// The order in which a reader leaves, which the model can be told to spoil.
#[inline]
fn reader_release() -> Ordering {
    #[cfg(loom)]
    if crate::readers_leave_relaxed() {
        return Ordering::Relaxed;
    }
    Ordering::Release
}
