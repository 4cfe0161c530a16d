//! No checks.

use core::panic::Location;

use crate::debug::Checks;
use crate::hooks::Operation;
use crate::platform::Platform;

#[derive(Debug, Default)]
pub(crate) struct LockDebug;

impl LockDebug {
    pub(crate) const fn new(_made_at: &'static Location<'static>) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn made_at(&self) -> Option<&'static Location<'static>> {
        None
    }
}

impl Checks for LockDebug {
    #[inline]
    fn before_lock<P: Platform>(&self, _: &Operation) {}
    #[inline]
    fn not_locked<P: Platform>(&self, _: &Operation) {}
    #[inline]
    fn locked<P: Platform>(&self, _: &Operation) {}
    #[inline]
    fn before_unlock<P: Platform>(&self, _: &Operation) {}
    #[inline]
    fn unlocked<P: Platform>(&self, _: &Operation) {}
}

#[derive(Debug, Default)]
pub(crate) struct HeldLocks;

impl HeldLocks {
    pub(crate) const fn new() -> Self {
        Self
    }
}
