//! Readers and writers that can die, for the model checkers.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use crosslock_core::primitive::Ordering;
use crosslock_core::{Condition, Ownership, RawRobustRw, Refused};

use super::robust::{Participant, Visited};
use super::{Counter, thread};

/// A reader-writer lock, and a counter that it guards.
pub(crate) struct GuardedRw {
    lock: RawRobustRw,
    counter: Counter,
    truth: Truth,
}

/// What is true of the lock, known from outside. Not a part of the model: written and read in the order of the execution.
#[derive(Default)]
struct Truth {
    /// A writer has died inside since the data were marked consistent.
    suspect: AtomicBool,
    /// They were not, and are given up.
    lost: AtomicBool,
    /// A writer has panicked inside since.
    poisoned: AtomicBool,
    /// Changes that came to their end.
    changes: AtomicUsize,
}

/// How a participant asks for the lock, and what it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Read,
    /// Does not sleep: gives up after the first look.
    ReadOrLeave,
    TryRead,
    /// Reads again while it reads.
    ReadTwice,
    Write,
    /// Does not sleep.
    WriteOrLeave,
    TryWrite,
    /// Writes, and never marks the data consistent.
    Forsake,
    /// Writes, and leaves as one who panics.
    Poison,
}

impl How {
    fn until_ns(self) -> u64 {
        if matches!(self, Self::ReadOrLeave | Self::WriteOrLeave) { 0 } else { u64::MAX }
    }
}

impl GuardedRw {
    /// What was got, if anything was.
    fn got(&self, result: Result<Option<Condition>, Refused>) -> Option<Condition> {
        let truth = &self.truth;
        match result {
            Ok(Some(condition)) => {
                assert!(!truth.lost.load(Ordering::SeqCst), "the data are given up");
                let owner_died = truth.suspect.load(Ordering::SeqCst);
                let poisoned = truth.poisoned.load(Ordering::SeqCst);
                assert_eq!(
                    condition,
                    Condition { owner_died, poisoned },
                    "what one is told who gets the lock"
                );
                Some(condition)
            }
            Ok(None) | Err(Refused::TimedOut) => None,
            Err(refused) => {
                assert_eq!(refused, Refused::NotRecoverable);
                assert!(truth.lost.load(Ordering::SeqCst), "nobody has given the data up");
                None
            }
        }
    }

    fn read(&self, cx: &Participant, how: How) {
        let result = match how {
            How::TryRead => self.lock.try_read(cx, cx.name),
            _ => self.lock.read(cx, cx.name, how.until_ns()).map(Some),
        };
        let Some(first) = self.got(result) else { return };
        let seen = self.counter.get();
        if how == How::ReadTwice {
            let again = self.got(self.lock.read(cx, cx.name, u64::MAX).map(Some));
            assert_eq!(again, Some(first));
            // SAFETY: reads twice, and still once after this.
            unsafe { self.lock.end_read(cx, cx.name) };
        }
        if cfg!(shuttle) {
            thread::yield_now();
        }
        assert_eq!(self.counter.get(), seen, "somebody wrote meanwhile");
        // SAFETY: reads, as above.
        unsafe { self.lock.end_read(cx, cx.name) };
    }

    fn write(&self, cx: &Participant, how: How) {
        let (lock, truth) = (&self.lock, &self.truth);
        let result = match how {
            How::TryWrite => lock.try_write(cx, cx.name),
            _ => lock.write(cx, cx.name, how.until_ns()).map(Some),
        };
        let Some(condition) = self.got(result) else { return };
        self.counter.add_one();
        truth.changes.fetch_add(1, Ordering::SeqCst);
        if how == How::Poison {
            // Found suspect, it is left so.
            truth.poisoned.store(true, Ordering::SeqCst);
            // SAFETY: writes, as above.
            unsafe { lock.end_write_as(cx, cx.name, Condition { poisoned: true, ..condition }) }.unwrap();
            return;
        }
        if condition.owner_died && how == How::Forsake {
            truth.lost.store(true, Ordering::SeqCst);
        } else if !condition.is_consistent() {
            // SAFETY: as above.
            unsafe { lock.mark_consistent(cx.name) }.unwrap();
            truth.suspect.store(false, Ordering::SeqCst);
            truth.poisoned.store(false, Ordering::SeqCst);
        }
        // SAFETY: as above.
        unsafe { lock.end_write(cx, cx.name) }.unwrap();
    }
}

impl Visited for GuardedRw {
    type How = How;

    fn new() -> Self {
        Self { lock: RawRobustRw::new(), counter: Counter::new(), truth: Truth::default() }
    }

    fn visit(&self, cx: &Participant, how: How) {
        match how {
            How::Read | How::ReadOrLeave | How::TryRead | How::ReadTwice => self.read(cx, how),
            _ => self.write(cx, how),
        }
    }

    fn mourn(&self, cx: &Participant) {
        let truth = &self.truth;
        let Ok(Ownership::Held(owner, condition)) = self.lock.gate().ownership() else { return };
        if owner != cx.name {
            return;
        }
        // Whoever was about to give the data up, or to poison them, has not come so far.
        truth.lost.store(false, Ordering::SeqCst);
        truth.poisoned.store(condition.poisoned, Ordering::SeqCst);
        if self.lock.writing() == Some(cx.name) {
            truth.suspect.store(true, Ordering::SeqCst);
        }
    }

    fn check(&self, heir: Option<&Participant>) {
        let changes = self.truth.changes.load(Ordering::SeqCst);
        if let Some(cx) = heir {
            let result = self.lock.try_write(cx, cx.name);
            assert_ne!(result, Ok(None), "nobody is left who could have it: {:?}", self.lock);
            self.got(result);
        }
        assert_eq!(self.counter.get(), changes, "a change was lost");
    }
}
