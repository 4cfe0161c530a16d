//! What takes part: every lock behind one trait, with an adapter of a few lines each.

use std::cell::UnsafeCell;
use std::sync::LazyLock;

use crosslock::{Options, Segment, SegmentContext, ThreadContext};
use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{RawLock, RawRobust};

use crate::prng::Prng;

/// What every lock here guards: the generator that the workloads step inside their critical sections.
pub(super) type Data = Prng;

/// A lock that takes part, with its data beside it.
///
/// All measuring code is generic over this, so that every lock, the floors too, is compiled into the same
/// loop.
pub(super) trait Contestant: Sync + Sized {
    /// A free lock.
    fn new() -> Self;

    /// Called once, where the lock stays from then on: for those that may not move after they are made.
    fn settle(&self) {}

    /// Runs `body` in a critical section.
    fn section<R>(&self, body: impl FnOnce(&mut Data) -> R) -> R;
}

/// A lock on a cache line of its own.
#[repr(C, align(64))]
pub(super) struct Line<L>(pub(super) L);

impl<R: lock_api::RawMutex + Sync> Contestant for lock_api::Mutex<R, Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock())
    }
}

impl Contestant for std::sync::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock().expect("no section panics"))
    }
}

impl Contestant for spin::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock())
    }
}

mcslock::thread_local_node!(static NODE);

impl Contestant for mcslock::raw::spins::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, body: impl FnOnce(&mut Data) -> T) -> T {
        self.lock_with_local_then(&NODE, body)
    }
}

/// A lock without data: acquired and released by two calls.
///
/// # Safety
/// At most one thread is between `acquire` and `release`.
pub(super) unsafe trait Bare: Sync {
    /// A free lock, once it is settled.
    fn new() -> Self;

    /// As [`Contestant::settle`].
    fn settle(&self) {}

    /// Waits until the lock is free, and takes it.
    fn acquire(&self);

    /// Gives the lock up.
    ///
    /// # Safety
    /// The caller owns the lock, by an `acquire` on this thread.
    unsafe fn release(&self);
}

/// A bare lock with its data beside it.
#[repr(C)]
pub(super) struct Guarding<B> {
    lock: B,
    data: UnsafeCell<Data>,
}

// SAFETY: the data is reached only in `section`, under the lock.
unsafe impl<B: Sync> Sync for Guarding<B> {}

impl<B: Bare> Contestant for Guarding<B> {
    fn new() -> Self {
        Self { lock: B::new(), data: UnsafeCell::default() }
    }

    fn settle(&self) {
        self.lock.settle();
    }

    #[inline]
    fn section<R>(&self, body: impl FnOnce(&mut Data) -> R) -> R {
        self.lock.acquire();
        // SAFETY: `Bare` excludes all others until the release.
        let result = body(unsafe { &mut *self.data.get() });
        // SAFETY: acquired above.
        unsafe { self.lock.release() };
        result
    }
}

/// Of memory that only this process writes.
const UNHARMED: &str = "nobody writes over the lock";

// SAFETY: `RawLock` excludes.
unsafe impl<L: RawLock<ThreadContext>> Bare for L {
    fn new() -> Self {
        L::default()
    }

    #[inline]
    fn acquire(&self) {
        RawLock::acquire(self, &ThreadContext).expect(UNHARMED);
    }

    #[inline]
    unsafe fn release(&self) {
        // SAFETY: passed on.
        unsafe { RawLock::release(self, &ThreadContext) }.expect(UNHARMED);
    }
}

/// The segment whose participants the threads are.
static SEGMENT: LazyLock<Segment> =
    LazyLock::new(|| Options::new().participants(1024).create_memfd("bench").expect("memory for a segment"));

/// The robust lock with its data, as [`crosslock::Mutex`] has it; but the lock lies where the others lie, and
/// only the participants are in a segment.
#[repr(C)]
pub(super) struct Robust {
    lock: RawRobust,
    data: UnsafeCell<Data>,
    cx: &'static SegmentContext,
}

// SAFETY: the data is reached only in `section`, under the lock.
unsafe impl Sync for Robust {}

impl Contestant for Robust {
    fn new() -> Self {
        let cx = SEGMENT.context().expect("created by this process");
        Self { lock: RawRobust::new(), data: UnsafeCell::default(), cx }
    }

    #[inline]
    fn section<R>(&self, body: impl FnOnce(&mut Data) -> R) -> R {
        let me = self.cx.me().expect("a slot for every thread");
        self.lock.acquire(self.cx, me).expect(UNHARMED);
        // SAFETY: the lock excludes all others until the release.
        let result = body(unsafe { &mut *self.data.get() });
        // SAFETY: acquired above.
        unsafe { self.lock.release(self.cx, me) }.expect(UNHARMED);
        result
    }
}

/// The least that a lock can do: one compare-exchange 0 -> 1, and one store. It cannot wait. With `TWO`, the
/// release is a compare-exchange as well: the least for a lock whose release must look whom to wake.
#[derive(Default)]
pub(super) struct Floor<const TWO: bool>(AtomicU32);

#[cold]
fn not_alone() -> ! {
    panic!("a floor is not a lock: it is measured by one thread only")
}

// SAFETY: of two that want in one panics.
unsafe impl<const TWO: bool> Bare for Floor<TWO> {
    fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn acquire(&self) {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            not_alone();
        }
    }

    #[inline]
    unsafe fn release(&self) {
        if !TWO {
            self.0.store(0, Ordering::Release);
        } else if self.0.compare_exchange(1, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            not_alone();
        }
    }
}
