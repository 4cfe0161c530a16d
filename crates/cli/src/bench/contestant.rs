//! What takes part: every lock behind one trait, with an adapter of a few lines each.

use std::cell::UnsafeCell;

use crosslock::SegmentContext;
use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{RawLock, RawRobust};

use crate::prng::Prng;

/// What every lock here guards: the generator that the workloads step inside their critical sections.
pub(super) type Data = Prng;

/// A lock that takes part, with its data beside it; used in a context `C`, whichever it is for those that ask for none.
///
/// All measuring code is generic over this, so that every lock, the floors too, is compiled into the same
/// loop.
pub(super) trait Contestant<C>: Sync + Sized {
    /// A free lock.
    fn new() -> Self;

    /// Called once, where the lock stays from then on: for those that may not move after they are made.
    fn settle(&self) {}

    /// Runs `body` in a critical section.
    fn section<R>(&self, cx: &C, body: impl FnOnce(&mut Data) -> R) -> R;
}

/// A contestant that may lie in a segment.
///
/// # Safety
/// It excludes the threads of all processes that have it in their memory, each at another address.
pub(super) unsafe trait Shareable: Contestant<SegmentContext> {}

/// A lock on a cache line of its own.
#[repr(C, align(64))]
pub(super) struct Line<L>(pub(super) L);

impl<C, R: lock_api::RawMutex + Sync> Contestant<C> for lock_api::Mutex<R, Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, _cx: &C, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock())
    }
}

impl<C> Contestant<C> for std::sync::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, _cx: &C, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock().expect("no section panics"))
    }
}

impl<C> Contestant<C> for spin::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, _cx: &C, body: impl FnOnce(&mut Data) -> T) -> T {
        body(&mut self.lock())
    }
}

mcslock::thread_local_node!(static NODE);

impl<C> Contestant<C> for mcslock::raw::spins::Mutex<Data> {
    fn new() -> Self {
        Self::new(Data::default())
    }

    #[inline]
    fn section<T>(&self, _cx: &C, body: impl FnOnce(&mut Data) -> T) -> T {
        self.lock_with_local_then(&NODE, body)
    }
}

/// A lock without data: acquired and released by two calls.
///
/// # Safety
/// At most one thread is between `acquire` and `release`, of all processes that the context `C` spans.
pub(super) unsafe trait Bare<C>: Sync {
    /// A free lock, once it is settled.
    fn new() -> Self;

    /// As [`Contestant::settle`].
    fn settle(&self) {}

    /// Waits until the lock is free, and takes it.
    fn acquire(&self, cx: &C);

    /// Gives the lock up.
    ///
    /// # Safety
    /// The caller owns the lock, by an `acquire` on this thread.
    unsafe fn release(&self, cx: &C);
}

/// A bare lock with its data beside it.
#[repr(C)]
pub(super) struct Guarding<B> {
    lock: B,
    data: UnsafeCell<Data>,
}

// SAFETY: the data is reached only in `section`, under the lock.
unsafe impl<B: Sync> Sync for Guarding<B> {}

impl<C, B: Bare<C>> Contestant<C> for Guarding<B> {
    fn new() -> Self {
        Self { lock: B::new(), data: UnsafeCell::default() }
    }

    fn settle(&self) {
        self.lock.settle();
    }

    #[inline]
    fn section<R>(&self, cx: &C, body: impl FnOnce(&mut Data) -> R) -> R {
        self.lock.acquire(cx);
        // SAFETY: `Bare` excludes all others until the release.
        let result = body(unsafe { &mut *self.data.get() });
        // SAFETY: acquired above.
        unsafe { self.lock.release(cx) };
        result
    }
}

// SAFETY: `Bare` excludes all processes that have the segment.
unsafe impl<B: Bare<SegmentContext>> Shareable for Guarding<B> {}

/// Of memory that only this program writes.
const UNHARMED: &str = "nobody writes over the lock";

// SAFETY: `RawLock` excludes.
unsafe impl<C, L: RawLock<C>> Bare<C> for L {
    fn new() -> Self {
        L::default()
    }

    #[inline]
    fn acquire(&self, cx: &C) {
        RawLock::acquire(self, cx).expect(UNHARMED);
    }

    #[inline]
    unsafe fn release(&self, cx: &C) {
        // SAFETY: passed on.
        unsafe { RawLock::release(self, cx) }.expect(UNHARMED);
    }
}

/// The robust lock with its data, as [`crosslock::Mutex`] has it; but it lies where the others lie, and for threads
/// only the participants are in a segment.
#[repr(C)]
pub(super) struct Robust {
    lock: RawRobust,
    data: UnsafeCell<Data>,
}

// SAFETY: the data is reached only in `section`, under the lock.
unsafe impl Sync for Robust {}

impl Contestant<SegmentContext> for Robust {
    fn new() -> Self {
        Self { lock: RawRobust::new(), data: UnsafeCell::default() }
    }

    #[inline]
    fn section<R>(&self, cx: &SegmentContext, body: impl FnOnce(&mut Data) -> R) -> R {
        let me = cx.me().expect("a slot for everybody");
        self.lock.acquire(cx, me).expect(UNHARMED);
        // SAFETY: the lock excludes all others until the release.
        let result = body(unsafe { &mut *self.data.get() });
        // SAFETY: acquired above.
        unsafe { self.lock.release(cx, me) }.expect(UNHARMED);
        result
    }
}

// SAFETY: the lock excludes all participants of the segment.
unsafe impl Shareable for Robust {}

/// The least that a lock can do: one compare-exchange 0 -> 1, and one store. It cannot wait. With `TWO`, the
/// release is a compare-exchange as well: the least for a lock whose release must look whom to wake.
#[derive(Default)]
pub(super) struct Floor<const TWO: bool>(AtomicU32);

#[cold]
fn not_alone() -> ! {
    panic!("a floor is not a lock: it is measured by one thread only")
}

// SAFETY: of two that want in one panics.
unsafe impl<C, const TWO: bool> Bare<C> for Floor<TWO> {
    fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn acquire(&self, _cx: &C) {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            not_alone();
        }
    }

    #[inline]
    unsafe fn release(&self, _cx: &C) {
        if !TWO {
            self.0.store(0, Ordering::Release);
        } else if self.0.compare_exchange(1, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            not_alone();
        }
    }
}
