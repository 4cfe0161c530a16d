//! What a guard knows of how it got its lock, and what it must leave behind.

use core::marker::PhantomData;

use crosslock_core::{Condition, Corrupted, Name, Ownership};

use crate::description::generation;

/// From a successful acquire to its release, by one thread.
pub(crate) struct Tenure {
    name: Name,
    generation: u32,
    /// The data may be half changed, and the user has not been told yet.
    unseen: bool,
    was_panicking: bool,
    not_send: PhantomData<*const ()>,
}

impl Tenure {
    #[inline]
    pub(crate) fn begin(name: Name, condition: Condition) -> Self {
        Self {
            name,
            generation: generation(),
            unseen: !condition.is_consistent(),
            was_panicking: std::thread::panicking(),
            not_send: PhantomData,
        }
    }

    /// Under which the lock was got.
    #[inline]
    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// The user knows of the state of the data.
    pub(crate) fn accept(&mut self) {
        self.unseen = false;
    }

    /// Whether this process got the lock; not the parent of which it is a fork.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// Panics in the child of a fork: a mistake of this program, which no peer can provoke.
    #[inline]
    pub(crate) fn check(&self) {
        assert!(self.is_of_this_process(), "this guard is the parent's; a forked child must lock anew");
    }

    /// Whether the release is no simple one: see [`Tenure::leaves`].
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.unseen || std::thread::panicking()
    }

    /// In what condition the data are to be left, if that must be said: not repaired, for their user has not seen
    /// that they must be; or poisoned, for a panic began since. `found` is what the owner word says.
    #[cold]
    pub(crate) fn leaves(&self, found: Result<Ownership, Corrupted>) -> Option<Condition> {
        let condition = match found {
            Ok(Ownership::Held(_, condition)) => condition,
            // Taken away; the release will tell.
            _ => return None,
        };
        if self.unseen {
            return Some(condition);
        }
        let panics = std::thread::panicking() && !self.was_panicking;
        panics.then_some(Condition { poisoned: true, ..condition })
    }
}
