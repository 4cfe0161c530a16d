//! What the robust lock asks of the place where it runs.

use super::seat::Seat;
use super::word::Name;
use crate::event::Event;
use crate::lock_hash::LockKey;
use crate::per_cpu::CpuId;
use crate::primitive::{self, AtomicU64};

/// Participants that can die: who they are, whether they live, how they sleep.
///
/// # Safety
/// [`RobustOps::is_dead`] is true only of a participant that does nothing any more, and everything that it did can
/// be seen by then. All users of a lock give the same [`RobustOps::seats`], mapped anywhere.
pub unsafe trait RobustOps {
    /// The seats of all slots that have ever been used.
    fn seats(&self) -> &[Seat];

    /// Who has that slot now; `None` where nobody has.
    fn name_of(&self, slot: CpuId) -> Option<Name>;

    /// Whether it is proven that `name` is dead, or has left for good.
    fn is_dead(&self, name: Name) -> bool;

    /// Suspends `me` until its seat has been kicked more often than `seen` times, `watched` is dead, or the clock
    /// shows `until_ns`. May return early for any reason.
    fn sleep(&self, me: Name, seen: u32, watched: Name, until_ns: u64);

    /// Adds 1 to the kicks of that slot's seat, with Release, and ends the sleep of its participant.
    fn kick(&self, slot: CpuId);

    /// The name of a lock in the seats: the same for all users of the lock, another for every other.
    fn lock_key(&self, word: &AtomicU64) -> LockKey;

    /// A clock that all participants share, in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Whether [`RobustOps::heavy_barrier`] is a full barrier for all participants, whatever they do at that
    /// moment. If so a release is a store; if not, an exchange.
    fn has_heavy_barrier(&self) -> bool;

    /// A full barrier; for all participants if [`RobustOps::has_heavy_barrier`].
    fn heavy_barrier(&self);

    /// One turn of a spin loop.
    #[inline]
    fn relax(&self) {
        primitive::spin_hint();
    }

    /// Lets others run on this CPU, if any wants to.
    #[inline]
    fn yield_now(&self) {
        self.relax();
    }

    /// How often a waiter looks at the word before it sleeps; between two looks it relaxes for 2, 4, 8, ... turns. At
    /// most 16. Seven looks take some microseconds, about what a sleep costs.
    #[inline]
    fn spin_rounds(&self) -> u32 {
        7
    }

    /// For how many nanoseconds the head spins that will get the lock at the next release.
    #[inline]
    fn spin_when_wanted_ns(&self) -> u64 {
        50_000
    }

    /// Counts `amount` of `event`. Free where not overridden.
    #[inline]
    fn count(&self, event: Event, amount: u64) {
        let _ = (event, amount);
    }
}
