//! The controls: a lock whose word names its owner, so that others can see whether he lives. With `LATE` the
//! name is stored one instruction after the lock is taken, and one who dies in between is never found dead.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crosslock::{Liveness, Segment, SpinMutex};
use crosslock_core::RawTas;
use crosslock_core::primitive::{AtomicU64, Ordering};

use super::lock::{CrashLock, NAME, Section};

/// The pair, and the lock's word. The segment's own lock is not used; the words are all there is.
type Words = [u64; 3];
const LOCK: usize = 2;

/// Free.
const NOBODY: u64 = 0;
/// Held by one who has not said who he is. No name: slots are small numbers.
const SOMEBODY: u64 = u64::MAX;

/// Between two looks at the word: long enough to be seen asleep.
const PAUSE: Duration = Duration::from_millis(10);

/// A lock with a name in it, as one thread uses it.
pub(super) struct Named<const LATE: bool> {
    words: SpinMutex<Words, RawTas>,
    me: u64,
}

fn name(slot: usize, incarnation: u32) -> u64 {
    u64::from(incarnation) << 32 | (slot as u64 + 1)
}

impl<const LATE: bool> Named<LATE> {
    fn word(&self) -> &AtomicU64 {
        &self.words.contents().words()[LOCK]
    }

    fn take(&self, from: u64) -> bool {
        let first = if LATE { SOMEBODY } else { self.me };
        let taken = self.word().compare_exchange(from, first, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if LATE && taken {
            // Too late: who is killed before this keeps the lock for ever.
            self.word().store(self.me, Ordering::Relaxed);
        }
        taken
    }

    fn is_alive(&self, owner: u64) -> anyhow::Result<bool> {
        let alive = self.words.segment().participants()?;
        let mut alive = alive.iter().filter(|other| other.liveness == Liveness::Alive);
        Ok(owner == SOMEBODY || alive.any(|other| name(other.slot.index(), other.incarnation) == owner))
    }
}

impl<const LATE: bool> CrashLock for Named<LATE> {
    type Guard<'a> = NamedGuard<'a, LATE>;

    fn create(segment: &Segment, name: &str) -> anyhow::Result<()> {
        segment.spin_mutex::<Words, RawTas>(name, [0; 3])?;
        Ok(())
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        let words = segment.open_spin_mutex(NAME)?;
        let slot = segment.register()?;
        let participants = segment.participants()?;
        let me = participants.iter().find(|other| other.slot == slot).context("registered, and not there")?;
        Ok(Self { words, me: name(slot.index(), me.incarnation) })
    }

    fn lock(&self, patience: Option<Duration>) -> anyhow::Result<Option<Self::Guard<'_>>> {
        let start = Instant::now();
        loop {
            let owner = self.word().load(Ordering::Relaxed);
            let owner_died = owner != NOBODY && !self.is_alive(owner)?;
            if (owner == NOBODY || owner_died) && self.take(owner) {
                return Ok(Some(NamedGuard { lock: self, owner_died }));
            }
            if patience.is_some_and(|patience| start.elapsed() >= patience) {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The right to the pair that a [`Named`] lock guards.
pub(super) struct NamedGuard<'a, const LATE: bool> {
    lock: &'a Named<LATE>,
    owner_died: bool,
}

impl<const LATE: bool> Section for NamedGuard<'_, LATE> {
    fn owner_died(&self) -> bool {
        self.owner_died
    }

    fn words(&self) -> &[AtomicU64] {
        self.lock.words.contents().words()
    }

    fn mark_consistent(&mut self) {
        // Nobody but this owner knows of it.
        self.owner_died = false;
    }
}

impl<const LATE: bool> Drop for NamedGuard<'_, LATE> {
    fn drop(&mut self) {
        self.lock.word().store(NOBODY, Ordering::Release);
    }
}
