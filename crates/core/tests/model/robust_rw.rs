//! Readers and writers that can die, for the model checkers.

use std::sync::Mutex;

use crosslock_core::{Condition, Ownership, RawRobustRw, Refused};

use super::robust::{Participant, Visited};
use super::{Counter, thread};

/// A reader-writer lock, and a counter that it guards.
pub(crate) struct GuardedRw {
    lock: RawRobustRw,
    counter: Counter,
    /// Not a part of the model: written and read in the order of the execution.
    truth: Mutex<Truth>,
}

/// What is true of a lock, known from outside.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    /// A writer has died inside since the data were marked consistent.
    suspect: bool,
    /// They were not, and are given up.
    lost: bool,
    /// A writer has panicked inside since.
    poisoned: bool,
    /// Changes that came to their end.
    changes: usize,
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
        let truth = *self.truth.lock().unwrap();
        match result {
            Ok(Some(condition)) => {
                assert!(!truth.lost, "the data are given up");
                let owner_died = truth.suspect;
                let poisoned = truth.poisoned;
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
                assert!(truth.lost, "nobody has given the data up");
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
        let (lock, truth) = (&self.lock, || self.truth.lock().unwrap());
        let result = match how {
            How::TryWrite => lock.try_write(cx, cx.name),
            _ => lock.write(cx, cx.name, how.until_ns()).map(Some),
        };
        let Some(condition) = self.got(result) else { return };
        self.counter.add_one();
        truth().changes += 1;
        if how == How::Poison {
            // Found suspect, it is left so.
            truth().poisoned = true;
            // SAFETY: writes, as above.
            unsafe { lock.end_write_as(cx, cx.name, Condition { poisoned: true, ..condition }) }.unwrap();
            return;
        }
        if condition.owner_died && how == How::Forsake {
            truth().lost = true;
        } else if !condition.is_consistent() {
            // SAFETY: as above.
            unsafe { lock.mark_consistent(cx.name) }.unwrap();
            truth().suspect = false;
            truth().poisoned = false;
        }
        // SAFETY: as above.
        unsafe { lock.end_write(cx, cx.name) }.unwrap();
    }
}

impl Visited for GuardedRw {
    type How = How;

    fn new() -> Self {
        Self { lock: RawRobustRw::new(), counter: Counter::new(), truth: Mutex::default() }
    }

    fn visit(&self, cx: &Participant, how: How) {
        match how {
            How::Read | How::ReadOrLeave | How::TryRead | How::ReadTwice => self.read(cx, how),
            _ => self.write(cx, how),
        }
    }

    fn mourn(&self, cx: &Participant) {
        let Ok(Ownership::Held(owner, condition)) = self.lock.gate().ownership() else { return };
        if owner != cx.name {
            return;
        }
        let was_writing = self.lock.writing() == Some(cx.name);
        let mut truth = self.truth.lock().unwrap();
        assert!(!truth.poisoned || condition.poisoned || was_writing, "nobody would be told of the panic");
        // Whoever was about to give the data up, or to poison them, has not come so far.
        (truth.lost, truth.poisoned) = (false, condition.poisoned);
        truth.suspect |= was_writing;
    }

    fn check(&self, heir: Option<&Participant>) {
        let changes = self.truth.lock().unwrap().changes;
        if let Some(cx) = heir {
            let result = self.lock.try_write(cx, cx.name);
            assert_ne!(result, Ok(None), "nobody is left who could have it: {:?}", self.lock);
            self.got(result);
        }
        assert_eq!(self.counter.get(), changes, "a change was lost");
    }
}
