//! What the checks say.

use core::fmt;
use core::panic::Location;

use crosslock_core::{Corrupted, CpuId};

use crate::platform::Platform;
use crate::preempt_count::{Count, MAX_IRQ_DEPTH};

/// Whether the lock can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// It can.
    Warning,
    /// It cannot: the caller panics, if [`Platform::report`] returns.
    Fatal,
}

/// What was found. Those that need the feature `debug-checks` say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The lock's memory is no lock's: overwritten, or never initialised (`debug-checks`).
    #[error("bad magic {found:#010x}: the lock was overwritten, or never initialised")]
    BadMagic {
        /// What was found in its place.
        found: u32,
    },
    /// The caller waits for itself, or for the code that it has interrupted.
    #[error("recursion: this CPU holds the lock already, so the caller would wait for ever")]
    Recursion,
    /// A release without an acquisition (`debug-checks`).
    #[error("unlock of a lock that is not locked")]
    NotLocked,
    /// A release by another task than the owner (`debug-checks`).
    #[error("unlock by task {caller} of a lock that task {owner} owns")]
    NotOwner {
        /// [`Platform::current`] of the owner.
        owner: u64,
        /// That of the caller.
        caller: u64,
    },
    /// A release on another CPU than the acquisition (`debug-checks`).
    #[error("unlock on CPU {caller} of a lock that was locked on CPU {owner}")]
    OtherCpu {
        /// Where it was locked.
        owner: u32,
        /// Where it is being unlocked.
        caller: u32,
    },
    /// A raw lock was held for longer than [`Platform::MAX_HOLD_NS`] (`debug-checks`).
    #[error("held for {ns} ns; a spin lock is not for long work")]
    HeldTooLong {
        /// For how long.
        ns: u64,
    },
    /// Guards that keep interrupts or bottom halves away end in another order than the reverse (`debug-checks`).
    /// Nothing is enabled too early here; the same code in C would do so.
    #[error("guards dropped in the wrong order: an inner one still keeps interrupts or bottom halves away")]
    WrongOrder,
    /// The `_irq` form, where interrupts are disabled already: it would enable them at its end, were it not
    /// counted (`debug-checks`).
    #[error("the _irq form was used where interrupts are disabled; use _irqsave")]
    IrqsAlreadyDisabled,
    /// More than [`MAX_IRQ_DEPTH`] guards keep interrupts away.
    #[error("more than {MAX_IRQ_DEPTH} nested guards keep interrupts away")]
    NestedTooDeep,
    /// A lock that may sleep, where nothing may (`debug-checks`).
    #[error("a lock that may sleep was taken in atomic context, preempt_count {count}")]
    SleepInAtomic {
        /// Why not.
        count: Count,
    },
    /// The owner of a sleeping lock ended without releasing it; the caller has it now.
    #[error("the owner ended while it held the lock; what it guards may be half changed")]
    OwnerDied,
    /// A count of references that is 0 was counted down.
    #[error("a count that is 0 was counted down")]
    Underflow,
    /// Millions of readers hold the lock: guards are being leaked.
    #[error("too many readers: their guards are leaked")]
    TooManyReaders,
    /// The lock or its queue holds what no lock writes.
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
    /// The operating system refuses to wait.
    #[error("waiting failed with error {errno}")]
    WaitFailed {
        /// The error number.
        errno: i32,
    },
}

impl Problem {
    /// Whether the lock can go on after it.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::HeldTooLong { .. }
            | Self::WrongOrder
            | Self::IrqsAlreadyDisabled
            | Self::SleepInAtomic { .. }
            | Self::OwnerDied => Severity::Warning,
            _ => Severity::Fatal,
        }
    }
}

/// The other side of a problem: who holds the lock, or the guard that should have ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSite {
    /// Where it took the lock.
    pub at: &'static Location<'static>,
    /// Its task, as [`Platform::current`] names it; 0 if not known.
    pub task: u64,
    /// Its CPU.
    pub cpu: Option<u32>,
}

/// One problem, with both places.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What was found.
    pub problem: Problem,
    /// The lock's address, where it is about one.
    pub lock: Option<usize>,
    /// Where the lock was made (`debug-checks`).
    pub made_at: Option<&'static Location<'static>>,
    /// The caller's place.
    pub at: &'static Location<'static>,
    /// The CPU that found it.
    pub cpu: Option<CpuId>,
    /// Its `preempt_count`.
    pub count: Count,
    /// The other side (`debug-checks`).
    pub other: Option<OtherSite>,
}

impl Report {
    pub(crate) fn of(problem: Problem, at: &'static Location<'static>) -> Self {
        Self { problem, lock: None, made_at: None, at, cpu: None, count: Count::from_bits(0), other: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crosslock: {}", self.problem)?;
        if let Some(lock) = self.lock {
            write!(f, "\n  lock {lock:#x}")?;
        }
        if let Some(made_at) = self.made_at {
            write!(f, ", made at {made_at}")?;
        }
        write!(f, "\n  at {}", self.at)?;
        if let Some(cpu) = self.cpu {
            write!(f, " on CPU {}", cpu.index())?;
        }
        write!(f, ", preempt_count {}", self.count)?;
        if let Some(other) = self.other {
            write!(f, "\n  held since {}", other.at)?;
            if other.task != 0 {
                write!(f, " by task {}", other.task)?;
            }
            if let Some(cpu) = other.cpu {
                write!(f, " on CPU {cpu}")?;
            }
        }
        Ok(())
    }
}

/// Hands the report to the platform.
///
/// # Panics
/// If it is fatal, and the platform returns.
#[cold]
#[inline(never)]
pub(crate) fn fail<P: Platform>(report: &Report) {
    let report = Report { cpu: P::CONTEXT.cpu(), count: P::preempt_count(), ..*report };
    P::report(&report);
    if report.problem.severity() == Severity::Fatal {
        panic!("{report}");
    }
}
