//! `rwlock_t`: many readers or one writer, who spin.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use crate::arch::{ArchSpinLock, Failure};
use crate::debug::{Checks, LockDebug};
use crate::form::{Bh, Form, Irq, IrqSave, Plain};
use crate::hooks::{Access, LockHooks, Operation};
use crate::kind::{Entered, refused};
use crate::marker::{Names, OfThisCpu};
use crate::platform::Platform;
use crate::qrwlock::{Queue, Refusal, RwLockWord};
use crate::report::Problem;
use crate::spinning::Spinning;

/// A queued reader-writer spin lock on the platform `P`, and the data that it guards.
///
/// Readers and writers wait in one queue, so neither starves. In handlers readers pass by the queue: code that holds the
/// lock for reading may be interrupted by a handler that reads, too. Outside of handlers who reads already
/// must not read again, for a writer may have come in between.
///
/// It spins also where a [`SpinLock`](crate::SpinLock) sleeps.
pub struct RwSpinLock<P: Platform, T: ?Sized> {
    word: RwLockWord,
    queue: P::Arch,
    debug: LockDebug,
    data: UnsafeCell<T>,
}

// SAFETY: the data go from owner to owner.
unsafe impl<P: Platform, T: ?Sized + Send> Send for RwSpinLock<P, T> {}
// SAFETY: readers share the data, a writer has them alone.
unsafe impl<P: Platform, T: ?Sized + Send + Sync> Sync for RwSpinLock<P, T> {}

/// The queue lock, as the word's algorithm sees it.
struct ArchQueue<'a, P: Platform>(&'a P::Arch);

impl<P: Platform> Queue for ArchQueue<'_, P> {
    type Error = Failure;

    fn acquire(&self) -> Result<(), Failure> {
        self.0.acquire(&P::CONTEXT)
    }

    unsafe fn release(&self) -> Result<(), Failure> {
        // SAFETY: the caller owns it.
        unsafe { self.0.release(&P::CONTEXT) }.map_err(Failure::from)
    }

    fn relax(&self) {
        crosslock_core::Context::relax(&P::CONTEXT);
    }
}

/// Reading or writing, as a type.
pub trait Mode: sealed::Sealed + 'static {}

/// Many at a time.
#[derive(Debug)]
pub struct Read;

/// One alone.
#[derive(Debug)]
pub struct Write;

impl Mode for Read {}
impl Mode for Write {}

mod sealed {
    use super::{Access, Platform, Problem, RwSpinLock};

    pub trait Sealed {
        const ACCESS: Access;

        fn acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> Result<(), Problem>;

        fn try_acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> bool;

        /// # Safety
        /// The caller owns the lock in this mode.
        unsafe fn release<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>);
    }
}
use sealed::Sealed;

/// Whether other CPUs are to be kept out.
const fn smp<P: Platform>() -> bool {
    <P::Arch as ArchSpinLock<P>>::SMP
}

/// On a uniprocessor: whoever finds the lock closed would wait for itself.
fn closed_up(word: &RwLockWord) -> Problem {
    if word.is_full() { Problem::TooManyReaders } else { Problem::Recursion }
}

impl From<Refusal<Failure>> for Problem {
    fn from(refusal: Refusal<Failure>) -> Self {
        match refusal {
            Refusal::Queue(failure) => Self::from(failure),
            Refusal::TooManyReaders => Self::TooManyReaders,
        }
    }
}

impl Sealed for Read {
    const ACCESS: Access = Access::Shared;

    #[inline]
    fn acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> Result<(), Problem> {
        if smp::<P>() {
            let in_handler = || !P::preempt_count().in_task();
            return Ok(lock.word.read(&ArchQueue::<P>(&lock.queue), in_handler)?);
        }
        if lock.word.try_read_up() { Ok(()) } else { Err(closed_up(&lock.word)) }
    }

    #[inline]
    fn try_acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> bool {
        if smp::<P>() { lock.word.try_read() } else { lock.word.try_read_up() }
    }

    #[inline]
    unsafe fn release<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) {
        if smp::<P>() {
            // SAFETY: the caller's.
            unsafe { lock.word.read_unlock() };
        } else {
            // SAFETY: the caller's.
            unsafe { lock.word.unlock_up(RwLockWord::READER_UP) };
        }
    }
}

impl Sealed for Write {
    const ACCESS: Access = Access::Exclusive;

    #[inline]
    fn acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> Result<(), Problem> {
        if smp::<P>() {
            return Ok(lock.word.write(&ArchQueue::<P>(&lock.queue))?);
        }
        if lock.word.try_write_up() { Ok(()) } else { Err(closed_up(&lock.word)) }
    }

    #[inline]
    fn try_acquire<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) -> bool {
        if smp::<P>() { lock.word.try_write() } else { lock.word.try_write_up() }
    }

    #[inline]
    unsafe fn release<P: Platform, T: ?Sized>(lock: &RwSpinLock<P, T>) {
        if smp::<P>() {
            // SAFETY: the caller's.
            unsafe { lock.word.write_unlock() };
        } else {
            // SAFETY: the caller's.
            unsafe { lock.word.unlock_up(RwLockWord::WRITER_UP) };
        }
    }
}

impl<P: Platform, T> RwSpinLock<P, T> {
    /// A free lock around `value`.
    #[must_use]
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self {
            word: RwLockWord::new(),
            queue: P::Arch::INIT,
            debug: LockDebug::new(Location::caller()),
            data: UnsafeCell::new(value),
        }
    }

    /// The data, for the lock is no more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident, $try_name:ident, $try_doc:literal: $mode:ident, $form:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        /// Where a check that cannot go on has been reported ([`Platform::report`]).
        #[inline]
        #[track_caller]
        pub fn $name(&self) -> RwGuard<'_, P, T, $mode, $form> {
            self.lock_as()
        }

        #[doc = $try_doc]
        #[inline]
        #[track_caller]
        pub fn $try_name(&self) -> Option<RwGuard<'_, P, T, $mode, $form>> {
            self.try_lock_as()
        }
    )*};
}

impl<P: Platform, T: ?Sized> RwSpinLock<P, T> {
    forms! {
        /// Waits until no writer has the lock, with preemption disabled (`read_lock`).
        read, try_read, "Reads if no writer has the lock or waits (`read_trylock`).": Read, Plain;
        /// The same with interrupts disabled, which are known to be enabled (`read_lock_irq`).
        read_irq, try_read_irq, "The attempt to.": Read, Irq;
        /// The same with interrupts disabled (`read_lock_irqsave`).
        read_irqsave, try_read_irqsave, "The attempt to.": Read, IrqSave;
        /// The same with bottom halves disabled (`read_lock_bh`).
        read_bh, try_read_bh, "The attempt to.": Read, Bh;
        /// Waits until nobody has the lock, with preemption disabled (`write_lock`).
        write, try_write, "Writes if nobody has the lock (`write_trylock`).": Write, Plain;
        /// The same with interrupts disabled, which are known to be enabled (`write_lock_irq`).
        write_irq, try_write_irq, "The attempt to.": Write, Irq;
        /// The same with interrupts disabled (`write_lock_irqsave`).
        write_irqsave, try_write_irqsave, "The attempt to.": Write, IrqSave;
        /// The same with bottom halves disabled (`write_lock_bh`).
        write_bh, try_write_bh, "The attempt to.": Write, Bh;
    }

    /// Whether somebody holds the lock; old news when it arrives.
    pub fn is_locked(&self) -> bool {
        self.word.is_locked()
    }

    /// Whether a writer holds the lock.
    pub fn is_write_locked(&self) -> bool {
        self.word.is_write_locked()
    }

    /// Whether somebody waits for the lock (`rwlock_is_contended`).
    pub fn is_contended(&self) -> bool {
        self.word.writer_waits() || self.queue.is_locked()
    }

    /// The data, without the lock: nobody else has a reference to it.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[inline]
    fn operation<M: Mode, F: Form>(&self, at: &'static Location<'static>, is_try: bool) -> Operation {
        Operation {
            lock: core::ptr::from_ref(&self.word).addr(),
            made_at: self.debug.made_at(),
            at,
            access: M::ACCESS,
            subclass: 0,
            is_try,
            form: F::KIND,
            sleeps: false,
        }
    }

    #[inline]
    #[track_caller]
    fn lock_as<M: Mode, F: Form>(&self) -> RwGuard<'_, P, T, M, F> {
        let entered = Entered::<P, Spinning<P>, F>::new();
        let operation = self.operation::<M, F>(Location::caller(), false);
        self.debug.before_lock::<P>(&operation);
        if P::Hooks::ENABLED {
            P::Hooks::acquire(&operation);
        }
        if !P::Hooks::ENABLED || !M::try_acquire(self) {
            if P::Hooks::ENABLED {
                P::Hooks::contended(&operation);
            }
            if let Err(problem) = M::acquire(self) {
                refused::<P>(problem, operation, &self.debug);
            }
        }
        if P::Hooks::ENABLED {
            P::Hooks::acquired(&operation);
        }
        self.debug.locked::<P>(&operation);
        entered.keep();
        RwGuard::new(self)
    }

    #[inline]
    #[track_caller]
    fn try_lock_as<M: Mode, F: Form>(&self) -> Option<RwGuard<'_, P, T, M, F>> {
        let entered = Entered::<P, Spinning<P>, F>::new();
        let operation = self.operation::<M, F>(Location::caller(), true);
        self.debug.before_lock::<P>(&operation);
        if !M::try_acquire(self) {
            self.debug.not_locked::<P>(&operation);
            return None;
        }
        if P::Hooks::ENABLED {
            P::Hooks::acquire(&operation);
            P::Hooks::acquired(&operation);
        }
        self.debug.locked::<P>(&operation);
        entered.keep();
        Some(RwGuard::new(self))
    }

    /// # Safety
    /// The caller owns the lock in this mode, by an acquisition of the same form on this CPU.
    #[inline]
    unsafe fn unlock_as<M: Mode, F: Form>(&self, at: &'static Location<'static>) {
        let operation = self.operation::<M, F>(at, false);
        if P::Hooks::ENABLED {
            P::Hooks::release(&operation);
        }
        self.debug.before_unlock::<P>(&operation);
        // SAFETY: the caller's.
        unsafe { M::release(self) };
        self.debug.unlocked::<P>(&operation);
        // SAFETY: the caller's.
        unsafe { F::exit::<P>() };
    }
}

impl<P: Platform, T: Default> Default for RwSpinLock<P, T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<P: Platform, T: ?Sized> fmt::Debug for RwSpinLock<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwSpinLock").field("word", &self.word).finish_non_exhaustive()
    }
}

/// Holds a [`RwSpinLock`] in mode `M`: [`Read`] or [`Write`].
///
/// As [`Guard`](crate::Guard): it does not leave its CPU, and may be dropped in any order with others.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct RwGuard<'a, P: Platform, T: ?Sized, M: Mode, F: Form> {
    lock: &'a RwSpinLock<P, T>,
    mode: Names<(M, F)>,
    of_this_cpu: OfThisCpu,
}

// SAFETY: a shared guard gives a shared reference to the data.
unsafe impl<P: Platform, T: ?Sized + Sync, M: Mode, F: Form> Sync for RwGuard<'_, P, T, M, F> {}

impl<'a, P: Platform, T: ?Sized, M: Mode, F: Form> RwGuard<'a, P, T, M, F> {
    #[inline]
    fn new(lock: &'a RwSpinLock<P, T>) -> Self {
        Self { lock, mode: PhantomData, of_this_cpu: PhantomData }
    }

    /// Drops the guard; hooks and checks are told the caller's place.
    #[inline]
    #[track_caller]
    pub fn unlock(self) {
        let lock = core::mem::ManuallyDrop::new(self).lock;
        // SAFETY: the guard owned the lock, and is not dropped.
        unsafe { lock.unlock_as::<M, F>(Location::caller()) };
    }
}

impl<P: Platform, T: ?Sized, M: Mode, F: Form> Drop for RwGuard<'_, P, T, M, F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard owns the lock, and is not Send.
        unsafe { self.lock.unlock_as::<M, F>(Location::caller()) };
    }
}

impl<P: Platform, T: ?Sized, M: Mode, F: Form> Deref for RwGuard<'_, P, T, M, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard owns the lock, alone or with other readers.
        unsafe { &*self.lock.data.get() }
    }
}

impl<P: Platform, T: ?Sized, F: Form> DerefMut for RwGuard<'_, P, T, Write, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard owns the lock alone, and is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<P: Platform, T: ?Sized + fmt::Debug, M: Mode, F: Form> fmt::Debug for RwGuard<'_, P, T, M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
