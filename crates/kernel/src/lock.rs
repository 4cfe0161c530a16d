//! A lock with its data: what [`RawSpinLock`](crate::RawSpinLock) and [`SpinLock`](crate::SpinLock) have in common.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use crosslock_core::primitive::{AtomicU32, Ordering};

use crate::debug::{Checks, LockDebug};
use crate::form::{Bh, Form, Irq, IrqSave, Plain};
use crate::hooks::{Access, LockHooks, Operation};
use crate::kind::{Entered, Kind, refused};
use crate::marker::{Names, OfThisCpu};
use crate::platform::Platform;
use crate::report::{Problem, Report, fail};

/// A lock of kind `K` on the platform `P`, and the data that it guards.
///
/// Not named directly: see [`RawSpinLock`](crate::RawSpinLock) and [`SpinLock`](crate::SpinLock).
pub struct Lock<P, K, T: ?Sized> {
    kind: K,
    debug: LockDebug,
    platform: Names<P>,
    data: UnsafeCell<T>,
}

// SAFETY: the data go from owner to owner, one at a time.
unsafe impl<P, K: Send, T: ?Sized + Send> Send for Lock<P, K, T> {}
// SAFETY: as above; a shared lock hands out one `&mut T` at a time.
unsafe impl<P, K: Sync, T: ?Sized + Send> Sync for Lock<P, K, T> {}

impl<P: Platform, K: Kind<P>, T> Lock<P, K, T> {
    /// A free lock around `value`.
    #[must_use]
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self {
            kind: K::INIT,
            debug: LockDebug::new(Location::caller()),
            platform: PhantomData,
            data: UnsafeCell::new(value),
        }
    }

    /// The data, for the lock is no more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized> Lock<P, K, T> {
    /// Waits for the lock, with preemption disabled (`spin_lock`).
    ///
    /// # Panics
    /// Where a check that cannot go on has been reported ([`Platform::report`]); so do all forms.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, P, K, T, Plain> {
        self.lock_as(0)
    }

    /// Waits for the lock, with interrupts disabled, which are known to be enabled (`spin_lock_irq`).
    #[inline]
    #[track_caller]
    pub fn lock_irq(&self) -> Guard<'_, P, K, T, Irq> {
        self.lock_as(0)
    }

    /// Waits for the lock, with interrupts disabled (`spin_lock_irqsave`).
    #[inline]
    #[track_caller]
    pub fn lock_irqsave(&self) -> Guard<'_, P, K, T, IrqSave> {
        self.lock_as(0)
    }

    /// Waits for the lock, with bottom halves disabled (`spin_lock_bh`).
    #[inline]
    #[track_caller]
    pub fn lock_bh(&self) -> Guard<'_, P, K, T, Bh> {
        self.lock_as(0)
    }

    /// Takes the lock if it is free (`spin_trylock`).
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, P, K, T, Plain>> {
        self.try_lock_as()
    }

    /// Takes the lock if it is free (`spin_trylock_irq`).
    #[inline]
    #[track_caller]
    pub fn try_lock_irq(&self) -> Option<Guard<'_, P, K, T, Irq>> {
        self.try_lock_as()
    }

    /// Takes the lock if it is free (`spin_trylock_irqsave`).
    #[inline]
    #[track_caller]
    pub fn try_lock_irqsave(&self) -> Option<Guard<'_, P, K, T, IrqSave>> {
        self.try_lock_as()
    }

    /// Takes the lock if it is free (`spin_trylock_bh`).
    #[inline]
    #[track_caller]
    pub fn try_lock_bh(&self) -> Option<Guard<'_, P, K, T, Bh>> {
        self.try_lock_as()
    }

    /// [`Lock::lock`] on another lock of the same class as one that is held, in an order that `subclass` tells the
    /// validator (`spin_lock_nested`).
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, subclass: u8) -> Guard<'_, P, K, T, Plain> {
        self.lock_as(subclass)
    }

    /// [`Lock::lock_irqsave`], likewise (`spin_lock_irqsave_nested`).
    #[inline]
    #[track_caller]
    pub fn lock_irqsave_nested(&self, subclass: u8) -> Guard<'_, P, K, T, IrqSave> {
        self.lock_as(subclass)
    }

    /// Counts `count` down; the lock comes with the guard if that made it 0 (`atomic_dec_and_lock`).
    ///
    /// Who gets the guard is the last user, and takes the object out of wherever others find it. Others who find it
    /// under the lock before that may count up.
    ///
    /// # Panics
    /// Where `count` is 0 already.
    #[inline]
    #[track_caller]
    pub fn dec_and_lock(&self, count: &AtomicU32) -> Option<Guard<'_, P, K, T, Plain>> {
        self.dec_and_lock_as(count)
    }

    /// [`Lock::dec_and_lock`] with interrupts disabled (`atomic_dec_and_lock_irqsave`).
    #[inline]
    #[track_caller]
    pub fn dec_and_lock_irqsave(&self, count: &AtomicU32) -> Option<Guard<'_, P, K, T, IrqSave>> {
        self.dec_and_lock_as(count)
    }

    #[track_caller]
    fn dec_and_lock_as<F: Form>(&self, count: &AtomicU32) -> Option<Guard<'_, P, K, T, F>> {
        let mut seen = count.load(Ordering::Relaxed);
        // Release: pairs with the Acquire of the last one below, who sees all that was done with the object.
        while seen > 1 {
            match count.compare_exchange(seen, seen - 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return None,
                Err(found) => seen = found,
            }
        }
        let guard = self.lock_as::<F>(0);
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            let Some(left) = seen.checked_sub(1) else {
                drop(guard);
                fail::<P>(&Report::of(Problem::Underflow, Location::caller()));
                return None;
            };
            match count.compare_exchange(seen, left, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return (left == 0).then_some(guard),
                Err(found) => seen = found,
            }
        }
    }

    /// Whether somebody holds the lock; old news when it arrives.
    pub fn is_locked(&self) -> bool {
        self.kind.is_locked()
    }

    /// Whether somebody waits for the lock; `false` where the algorithm cannot tell.
    pub fn is_contended(&self) -> bool {
        self.kind.is_contended()
    }

    /// Panics if nobody holds the lock (`assert_spin_locked`); with [`UpUnchecked`](crate::UpUnchecked), which does not
    /// know, never.
    ///
    /// # Panics
    /// Says it.
    #[track_caller]
    pub fn assert_held(&self) {
        assert!(!K::KNOWS || self.is_locked(), "lock {:#x} is not held", self.address());
    }

    /// The data, without the lock: nobody else has a reference to it.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// The algorithm underneath, to look at its word.
    pub const fn kind(&self) -> &K {
        &self.kind
    }

    /// Gives up a lock whose guard was forgotten, as when a context switch ends in another task's stack.
    ///
    /// # Safety
    /// The lock is owned on this CPU, by an acquisition of the form `F` whose guard was passed to
    /// [`core::mem::forget`], and the data are not in use any more.
    #[inline]
    #[track_caller]
    pub unsafe fn force_unlock<F: Form>(&self) {
        // SAFETY: the caller's.
        unsafe { self.unlock_as::<F>(Location::caller()) };
    }

    /// Names the lock: the address of a part that no other lock has. The lock underneath may be nothing, and so may be
    /// the checks.
    fn address(&self) -> usize {
        match size_of::<LockDebug>() {
            0 => core::ptr::from_ref(&self.kind).addr(),
            _ => core::ptr::from_ref(&self.debug).addr(),
        }
    }

    #[inline]
    fn operation<F: Form>(&self, at: &'static Location<'static>, subclass: u8, is_try: bool) -> Operation {
        Operation {
            lock: self.address(),
            made_at: self.debug.made_at(),
            at,
            access: Access::Exclusive,
            subclass,
            is_try,
            form: F::KIND,
            sleeps: K::SLEEPS,
        }
    }

    #[inline]
    #[track_caller]
    fn lock_as<F: Form>(&self, subclass: u8) -> Guard<'_, P, K, T, F> {
        let entered = Entered::<P, K, F>::new();
        let operation = self.operation::<F>(Location::caller(), subclass, false);
        self.debug.before_lock::<P>(&operation);
        if P::Hooks::ENABLED {
            P::Hooks::acquire(&operation);
        }
        if !P::Hooks::ENABLED || !self.kind.try_acquire() {
            if P::Hooks::ENABLED {
                P::Hooks::contended(&operation);
            }
            if let Err(problem) = self.kind.acquire() {
                refused::<P>(problem, operation, &self.debug);
            }
        }
        if P::Hooks::ENABLED {
            P::Hooks::acquired(&operation);
        }
        self.debug.locked::<P>(&operation);
        entered.keep();
        Guard::new(self)
    }

    #[inline]
    #[track_caller]
    fn try_lock_as<F: Form>(&self) -> Option<Guard<'_, P, K, T, F>> {
        let entered = Entered::<P, K, F>::new();
        let operation = self.operation::<F>(Location::caller(), 0, true);
        self.debug.before_lock::<P>(&operation);
        if !self.kind.try_acquire() {
            self.debug.not_locked::<P>(&operation);
            return None;
        }
        if P::Hooks::ENABLED {
            P::Hooks::acquire(&operation);
            P::Hooks::acquired(&operation);
        }
        self.debug.locked::<P>(&operation);
        entered.keep();
        Some(Guard::new(self))
    }

    /// # Safety
    /// The caller owns the lock, by an acquisition of the same form on this CPU.
    #[inline]
    unsafe fn unlock_as<F: Form>(&self, at: &'static Location<'static>) {
        let operation = self.operation::<F>(at, 0, false);
        if P::Hooks::ENABLED {
            P::Hooks::release(&operation);
        }
        self.debug.before_unlock::<P>(&operation);
        // SAFETY: the caller's.
        let released = unsafe { self.kind.release() };
        if let Err(problem) = released {
            refused::<P>(problem, operation, &self.debug);
        }
        self.debug.unlocked::<P>(&operation);
        // SAFETY: the caller's.
        unsafe { K::exit::<F>() };
    }
}

impl<P: Platform, K: Kind<P>, T: Default> Default for Lock<P, K, T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized> fmt::Debug for Lock<P, K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("is_locked", &self.is_locked()).finish_non_exhaustive()
    }
}

/// Holds a lock; gives it up when dropped, and then enables what its form `F` has disabled.
///
/// It does not leave its CPU, and may be dropped in any order with others: what is disabled is counted, not saved.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct Guard<'a, P: Platform, K: Kind<P>, T: ?Sized, F: Form> {
    lock: &'a Lock<P, K, T>,
    form: Names<F>,
    of_this_cpu: OfThisCpu,
}

// SAFETY: a shared guard gives a shared reference to the data.
unsafe impl<P: Platform, K: Kind<P>, T: ?Sized + Sync, F: Form> Sync for Guard<'_, P, K, T, F> {}

impl<'a, P: Platform, K: Kind<P>, T: ?Sized, F: Form> Guard<'a, P, K, T, F> {
    #[inline]
    fn new(lock: &'a Lock<P, K, T>) -> Self {
        Self { lock, form: PhantomData, of_this_cpu: PhantomData }
    }

    /// Drops the guard; hooks and checks are told the caller's place.
    #[inline]
    #[track_caller]
    pub fn unlock(self) {
        let lock = core::mem::ManuallyDrop::new(self).lock;
        // SAFETY: the guard owned the lock, and is not dropped.
        unsafe { lock.unlock_as::<F>(Location::caller()) };
    }

    /// The lock that it holds.
    #[must_use]
    pub fn lock(guard: &Self) -> &'a Lock<P, K, T> {
        guard.lock
    }

    /// Whether a long section should let others in (`spin_needbreak`): somebody waits.
    #[must_use]
    pub fn needs_break(guard: &Self) -> bool {
        guard.lock.is_contended()
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized, F: Form> Drop for Guard<'_, P, K, T, F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard owns the lock, and is not Send.
        unsafe { self.lock.unlock_as::<F>(Location::caller()) };
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized, F: Form> Deref for Guard<'_, P, K, T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard owns the lock.
        unsafe { &*self.lock.data.get() }
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized, F: Form> DerefMut for Guard<'_, P, K, T, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard owns the lock, and is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<P: Platform, K: Kind<P>, T: ?Sized + fmt::Debug, F: Form> fmt::Debug for Guard<'_, P, K, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
