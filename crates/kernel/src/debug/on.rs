//! The checks.
//!
//! Who holds what is written twice. Each CPU has a stack of the locks that its contexts hold *or are about to
//! take*: so a handler that takes a lock of the code it interrupts is found at whatever instruction it came, between
//! the last atomic operation and the note of the owner, too. And each lock knows its owner, for others to read.

use core::panic::Location;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, signal_fence};

use crate::debug::Checks;
use crate::debug::site::Site;
use crate::form::FormKind;
use crate::hooks::{Access, Operation};
use crate::platform::Platform;
use crate::report::{OtherSite, Problem, Report, fail};

/// "dead 4ead" in Linux, too: whoever sees it in a dump knows what it is.
const MAGIC: u32 = 0xdead_4ead;

/// What a lock knows of itself and its owner.
#[derive(Debug)]
pub(crate) struct LockDebug {
    magic: AtomicU32,
    /// The owner's CPU + 1.
    cpu: AtomicU32,
    /// The owner, 0 if there is none; readers are not noted.
    owner: AtomicU64,
    since_ns: AtomicU64,
    at: Site,
    /// `None` only in memory that is all zero, and so no lock's.
    made_at: Option<&'static Location<'static>>,
}

impl LockDebug {
    pub(crate) const fn new(made_at: &'static Location<'static>) -> Self {
        Self {
            magic: AtomicU32::new(MAGIC),
            cpu: AtomicU32::new(0),
            owner: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            at: Site::none(),
            made_at: Some(made_at),
        }
    }

    #[inline]
    pub(crate) fn made_at(&self) -> Option<&'static Location<'static>> {
        // Garbage in the lock must not be followed.
        if self.magic.load(Ordering::Relaxed) == MAGIC { self.made_at } else { None }
    }

    fn fail<P: Platform>(&self, problem: Problem, operation: &Operation, other: Option<OtherSite>) {
        fail::<P>(&Report {
            lock: Some(operation.lock),
            made_at: self.made_at(),
            other,
            ..Report::of(problem, operation.at)
        });
    }

    fn check_magic<P: Platform>(&self, operation: &Operation) {
        let found = self.magic.load(Ordering::Relaxed);
        if found != MAGIC {
            self.fail::<P>(Problem::BadMagic { found }, operation, None);
        }
    }

    /// Who has the lock: read by others while it changes, so its parts may be of two owners.
    fn owner_site(&self) -> Option<OtherSite> {
        let task = self.owner.load(Ordering::Relaxed);
        let cpu = self.cpu.load(Ordering::Relaxed).checked_sub(1);
        (task != 0).then_some(())?;
        Some(OtherSite { at: self.at.get()?, task, cpu })
    }
}

fn this_cpu<P: Platform>() -> u32 {
    P::CONTEXT.cpu().map_or(u32::MAX - 1, |cpu| u32::try_from(cpu.index()).unwrap_or(u32::MAX - 1))
}

impl Checks for LockDebug {
    #[inline]
    fn before_lock<P: Platform>(&self, operation: &Operation) {
        self.check_magic::<P>(operation);
        if operation.sleeps {
            let count = P::preempt_count();
            if !count.may_sleep() || P::irqs_disabled() {
                self.fail::<P>(Problem::SleepInAtomic { count }, operation, None);
            }
            if !operation.is_try && self.owner.load(Ordering::Relaxed) == P::current() {
                self.fail::<P>(Problem::Recursion, operation, self.owner_site());
            }
            return;
        }
        let held = &P::this_cpu().held;
        if !operation.is_try
            && let Some(at) = held.conflict::<P>(operation)
        {
            let other =
                OtherSite { at, task: self.owner.load(Ordering::Relaxed), cpu: Some(this_cpu::<P>()) };
            self.fail::<P>(Problem::Recursion, operation, Some(other));
        }
        held.push(operation);
    }

    #[inline]
    fn not_locked<P: Platform>(&self, operation: &Operation) {
        if !operation.sleeps {
            P::this_cpu().held.remove(operation);
        }
    }

    #[inline]
    fn locked<P: Platform>(&self, operation: &Operation) {
        if operation.access == Access::Shared {
            return;
        }
        self.since_ns.store(P::CONTEXT.clock_ns(), Ordering::Relaxed);
        self.at.set(operation.at);
        self.cpu.store(this_cpu::<P>() + 1, Ordering::Relaxed);
        self.owner.store(P::current(), Ordering::Relaxed);
    }

    #[inline]
    fn before_unlock<P: Platform>(&self, operation: &Operation) {
        self.check_magic::<P>(operation);
        if operation.access == Access::Exclusive {
            let owner = self.owner.load(Ordering::Relaxed);
            let (caller, cpu, on) = (P::current(), self.cpu.load(Ordering::Relaxed), this_cpu::<P>() + 1);
            if owner == 0 {
                self.fail::<P>(Problem::NotLocked, operation, None);
            } else if owner != caller {
                self.fail::<P>(Problem::NotOwner { owner, caller }, operation, self.owner_site());
            } else if cpu != on && !operation.sleeps {
                // Not noted any more, if another has the lock, too, and gives it up just now.
                let problem = Problem::OtherCpu { owner: cpu.saturating_sub(1), caller: on - 1 };
                self.fail::<P>(problem, operation, self.owner_site());
            }
            let ns = P::CONTEXT.clock_ns().saturating_sub(self.since_ns.load(Ordering::Relaxed));
            if P::MAX_HOLD_NS != 0 && ns > P::MAX_HOLD_NS && !operation.sleeps {
                self.fail::<P>(Problem::HeldTooLong { ns }, operation, self.owner_site());
            }
            self.owner.store(0, Ordering::Relaxed);
            self.cpu.store(0, Ordering::Relaxed);
        }
        if !operation.sleeps
            && let Some((mine, at)) = P::this_cpu().held.still_inside(operation)
        {
            let other = OtherSite { at, task: P::current(), cpu: Some(this_cpu::<P>()) };
            self.fail::<P>(Problem::WrongOrder, &Operation { at: mine, ..*operation }, Some(other));
        }
    }

    #[inline]
    fn unlocked<P: Platform>(&self, operation: &Operation) {
        if !operation.sleeps {
            P::this_cpu().held.remove(operation);
        }
    }
}

/// Locks that are noted for each CPU; deeper ones are not checked.
const MAX_HELD: usize = 32;

/// In `Held::lock`: being written, or not in use.
const RESERVED: u64 = 0;
/// In `Held::lock`: taken out, below others.
const GONE: u64 = 1;

const SHARED: u32 = 1;
const KEEPS_AWAY: u32 = 2;

/// One lock that this CPU holds or is about to take.
#[derive(Debug)]
struct Held {
    lock: AtomicU64,
    at: Site,
    flags: AtomicU32,
}

/// The stack of one CPU.
///
/// Written by this CPU alone, by contexts that nest: who interrupts leaves `depth` as it was, and writes only above
/// it. So room is made first, and then filled.
#[derive(Debug)]
pub(crate) struct HeldLocks {
    depth: AtomicU32,
    held: [Held; MAX_HELD],
}

impl HeldLocks {
    pub(crate) const fn new() -> Self {
        Self {
            depth: AtomicU32::new(0),
            held: [const { Held { lock: AtomicU64::new(RESERVED), at: Site::none(), flags: AtomicU32::new(0) } };
                MAX_HELD],
        }
    }

    /// From the innermost outwards.
    fn live(&self) -> impl Iterator<Item = &Held> {
        let depth = (self.depth.load(Ordering::Relaxed) as usize).min(MAX_HELD);
        self.held[..depth].iter().rev()
    }

    fn find(&self, lock: usize) -> Option<&Held> {
        self.live().find(|held| held.lock.load(Ordering::Relaxed) == lock as u64)
    }

    /// Where this CPU took the lock that the caller would wait for in vain.
    ///
    /// Readers may nest in handlers, who pass by the queue; in the same context a writer may wait in between.
    fn conflict<P: Platform>(&self, operation: &Operation) -> Option<&'static Location<'static>> {
        let held = self.find(operation.lock)?;
        let both_read =
            held.flags.load(Ordering::Relaxed) & SHARED != 0 && operation.access == Access::Shared;
        if both_read && !P::preempt_count().in_task() {
            return None;
        }
        held.at.get()
    }

    fn push(&self, operation: &Operation) {
        let depth = self.depth.load(Ordering::Relaxed);
        self.depth.store(depth + 1, Ordering::Relaxed);
        signal_fence();
        let Some(held) = self.held.get(depth as usize) else {
            return;
        };
        let shared = if operation.access == Access::Shared { SHARED } else { 0 };
        let keeps_away = if operation.form == FormKind::Plain { 0 } else { KEEPS_AWAY };
        held.flags.store(shared | keeps_away, Ordering::Relaxed);
        held.at.set(operation.at);
        signal_fence();
        held.lock.store(operation.lock as u64, Ordering::Relaxed);
        signal_fence();
    }

    fn remove(&self, operation: &Operation) {
        signal_fence();
        let mut depth = self.depth.load(Ordering::Relaxed) as usize;
        match self.find(operation.lock) {
            Some(held) => held.lock.store(GONE, Ordering::Relaxed),
            // One of those that are not noted.
            None if depth > MAX_HELD => {
                depth -= 1;
                self.store_depth(depth);
            }
            None => return,
        }
        signal_fence();
        while let Some(top) = depth.checked_sub(1).and_then(|top| self.held.get(top)) {
            if top.lock.load(Ordering::Relaxed) != GONE {
                break;
            }
            top.lock.store(RESERVED, Ordering::Relaxed);
            signal_fence();
            depth -= 1;
            self.store_depth(depth);
        }
    }

    fn store_depth(&self, depth: usize) {
        self.depth.store(u32::try_from(depth).unwrap_or(u32::MAX), Ordering::Relaxed);
        signal_fence();
    }

    /// Where the lock was taken, and an inner guard that should have ended before it: both keep something away.
    fn still_inside(
        &self,
        operation: &Operation,
    ) -> Option<(&'static Location<'static>, &'static Location<'static>)> {
        if operation.form == FormKind::Plain {
            return None;
        }
        let inner = |held: &&Held| {
            held.flags.load(Ordering::Relaxed) & KEEPS_AWAY != 0
                && !matches!(held.lock.load(Ordering::Relaxed), RESERVED | GONE)
        };
        let innermost = self.live().find(inner)?;
        if innermost.lock.load(Ordering::Relaxed) == operation.lock as u64 {
            return None;
        }
        Some((self.find(operation.lock)?.at.get()?, innermost.at.get()?))
    }
}

impl Default for HeldLocks {
    fn default() -> Self {
        Self::new()
    }
}
