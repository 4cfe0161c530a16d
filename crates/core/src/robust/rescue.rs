//! For those who look on: freeing locks of the dead, and of those whom a person declares so.

use super::{Condition, Ownership, RawRobust, RobustOps};
use crate::error::Corrupted;
use crate::primitive::Ordering;

impl RawRobust {
    /// Frees the lock if its owner is dead, and wakes who waits for it; whether it was so. The next owner will be
    /// told of the death.
    ///
    /// Waiters do this by themselves; this is for those who look on.
    ///
    /// # Errors
    /// [`Corrupted::NoSuchOwner`].
    pub fn repair<C: RobustOps>(&self, cx: &C) -> Result<bool, Corrupted> {
        let word = self.owner.load(Ordering::Relaxed);
        match Ownership::decode(word)? {
            Ownership::Held(name, _) if cx.is_dead(name) => Ok(self.evict(cx, word)),
            _ => Ok(false),
        }
    }

    /// Takes the lock away from whoever has it, who may be alive and will go on as if it had it: for people who know
    /// that it will not. Words that say nothing, or that the data are given up, are put in order. The next owner will be told
    /// that an owner died.
    ///
    /// Only if the owner word is still `word`, which the caller has looked at. Gives whether there was anything to do, and
    /// it was done.
    pub fn evict<C: RobustOps>(&self, cx: &C, word: u64) -> bool {
        let condition = match Ownership::decode(word) {
            Ok(Ownership::Held(_, condition)) => condition,
            Ok(Ownership::Free(_)) => return false,
            Ok(Ownership::Reserved(_) | Ownership::Lost) | Err(_) => Condition::default(),
        };
        let free = Ownership::Free(condition.after_death()).encode();
        // Release, and Acquire of what the owner wrote: as if it had released.
        let evicted = self.owner.compare_exchange(word, free, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if evicted {
            self.attention.store(0, Ordering::Release);
            self.kick_all(cx);
        }
        evicted
    }
}
