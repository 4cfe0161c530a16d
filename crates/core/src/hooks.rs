//! Points around every lock operation where a validator or statistics can sit.
//!
//! The order for one acquisition is that of the Linux kernel's lockdep and lock_stat: `acquire`, then
//! `contended` if the lock was not free, then `acquired`; and `release` before the lock is given up. A
//! failed `try_lock` shows as nothing.

use core::panic::Location;

use crate::error::Corrupted;
use crate::raw::RawLock;

/// Told of every lock operation, with the caller's source location; where a guard is dropped, which has no
/// caller, that is the guard's own. They must not panic: a lock that was acquired would stay so.
///
/// `lock` is the address of the lock's word in this process.
pub trait Hooks {
    /// Whether to call the others at all: `false` removes them, and the locations, from the code.
    const ENABLED: bool = true;

    /// The caller is about to take `lock`; `try_lock` tells only of success.
    fn acquire(&self, lock: usize, at: &'static Location<'static>, is_try: bool) {
        let _ = (lock, at, is_try);
    }

    /// The lock is not free: the caller is about to wait.
    fn contended(&self, lock: usize, at: &'static Location<'static>) {
        let _ = (lock, at);
    }

    /// The caller owns the lock.
    fn acquired(&self, lock: usize, at: &'static Location<'static>) {
        let _ = (lock, at);
    }

    /// The lock is damaged ([`Corrupted`]): what [`Hooks::acquire`] announced does not come.
    fn abandoned(&self, lock: usize, at: &'static Location<'static>) {
        let _ = (lock, at);
    }

    /// The caller is about to give the lock up.
    fn release(&self, lock: usize, at: &'static Location<'static>) {
        let _ = (lock, at);
    }
}

/// No hooks: nothing is called, nothing is emitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    const ENABLED: bool = false;
}

fn address<L>(lock: &L) -> usize {
    core::ptr::from_ref(lock).addr()
}

/// [`RawLock::acquire`], with hooks.
///
/// # Errors
/// As [`RawLock::acquire`].
#[inline]
#[track_caller]
pub fn acquire_hooked<L: RawLock<C>, C, H: Hooks>(lock: &L, cx: &C, hooks: &H) -> Result<(), Corrupted> {
    if !H::ENABLED {
        return lock.acquire(cx);
    }
    let (name, at) = (address(lock), Location::caller());
    hooks.acquire(name, at, false);
    if !lock.try_acquire(cx) {
        hooks.contended(name, at);
        lock.acquire(cx).inspect_err(|_| hooks.abandoned(name, at))?;
    }
    hooks.acquired(name, at);
    Ok(())
}

/// [`RawLock::try_acquire`], with hooks.
#[inline]
#[track_caller]
pub fn try_acquire_hooked<L: RawLock<C>, C, H: Hooks>(lock: &L, cx: &C, hooks: &H) -> bool {
    let taken = lock.try_acquire(cx);
    if H::ENABLED && taken {
        let (name, at) = (address(lock), Location::caller());
        hooks.acquire(name, at, true);
        hooks.acquired(name, at);
    }
    taken
}

/// [`RawLock::release`], with hooks.
///
/// # Errors
/// As [`RawLock::release`].
///
/// # Safety
/// As [`RawLock::release`].
#[inline]
#[track_caller]
pub unsafe fn release_hooked<L: RawLock<C>, C, H: Hooks>(
    lock: &L,
    cx: &C,
    hooks: &H,
) -> Result<(), Corrupted> {
    if H::ENABLED {
        hooks.release(address(lock), Location::caller());
    }
    // SAFETY: the caller owns the lock.
    unsafe { lock.release(cx) }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use core::cell::RefCell;

    use super::*;
    use crate::RawTas;
    use crate::testing::Cpu;

    #[derive(Default)]
    struct Log(RefCell<Vec<(&'static str, u32)>>);

    impl Hooks for Log {
        fn acquire(&self, _: usize, at: &'static Location<'static>, is_try: bool) {
            self.0.borrow_mut().push((if is_try { "try" } else { "acquire" }, at.line()));
        }
        fn contended(&self, _: usize, at: &'static Location<'static>) {
            self.0.borrow_mut().push(("contended", at.line()));
        }
        fn acquired(&self, _: usize, at: &'static Location<'static>) {
            self.0.borrow_mut().push(("acquired", at.line()));
        }
        fn release(&self, _: usize, at: &'static Location<'static>) {
            self.0.borrow_mut().push(("release", at.line()));
        }
    }

    #[test]
    fn each_operation_tells_its_own_line() {
        let (lock, cx, log) = (RawTas::new(), Cpu::default(), Log::default());
        let first = line!() + 1;
        acquire_hooked(&lock, &cx, &log).unwrap();
        assert!(!try_acquire_hooked(&lock, &cx, &log));
        // SAFETY: acquired above.
        unsafe { release_hooked(&lock, &cx, &log) }.unwrap();
        assert!(try_acquire_hooked(&lock, &cx, &log));
        let told = [
            ("acquire", first),
            ("acquired", first),
            ("release", first + 3),
            ("try", first + 4),
            ("acquired", first + 4),
        ];
        assert_eq!(*log.0.borrow(), told);
    }

    #[test]
    fn contention_is_told_before_the_wait() {
        let (lock, log) = (RawTas::new(), Log::default());
        assert!(lock.try_acquire(&Cpu::default()));
        std::thread::scope(|scope| {
            let lock = &lock;
            scope.spawn(move || {
                std::thread::sleep(core::time::Duration::from_millis(5));
                // SAFETY: acquired above, on behalf of this thread.
                unsafe { lock.release(&Cpu::default()) }.unwrap();
            });
            acquire_hooked(lock, &Cpu::default(), &log).unwrap();
        });
        let told: Vec<_> = log.0.borrow().iter().map(|(what, _)| *what).collect();
        assert_eq!(told, ["acquire", "contended", "acquired"]);
    }
}
