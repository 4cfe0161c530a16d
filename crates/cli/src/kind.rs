//! The locks that the command knows by name.

use clap::ValueEnum;
use crosslock_core::select::{Choice, Features, Mode};

/// A lock algorithm, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum LockKind {
    /// Test-and-test-and-set with backoff
    Tas,
    /// Ticket lock, as in Linux 4.1
    Ticket,
    /// MCS queue lock
    Mcs,
    /// Queued spin lock of Linux
    QSpinLock,
    /// Paravirtual queued spin lock of Linux: waiters sleep
    PvQSpinLock,
    /// Whichever of tas, qspinlock and pvqspinlock the platform's features select
    Auto,
    /// A lock that does not lock: it must be caught
    Busted,
}

impl LockKind {
    /// The real locks.
    pub(crate) const FAMILY: [Self; 5] =
        [Self::Tas, Self::Ticket, Self::Mcs, Self::QSpinLock, Self::PvQSpinLock];

    /// Replaces `auto` by what the platform selects for `cpus` contenders.
    pub(crate) fn resolve(self, cpus: u32, nopvspin: bool) -> (Self, Option<Choice>) {
        if self != Self::Auto {
            return (self, None);
        }
        // Threads are preempted by the scheduler, and a futex wakes them.
        let choice = Features { preemptible: true, unhalt: true, realtime: false, cpus, nopvspin }.choose();
        let kind = match choice.mode {
            Mode::Native => Self::QSpinLock,
            Mode::Paravirtual => Self::PvQSpinLock,
            Mode::TestAndSet => Self::Tas,
        };
        (kind, Some(choice))
    }
}

/// Evaluates `$body` with the type `$lock` of the lock that `$kind` names; `$auto` for an unresolved `auto`.
macro_rules! with_lock {
    ($kind:expr, $lock:ident => $body:expr) => {{
        use $crate::kind::LockKind;
        match $kind {
            LockKind::Tas => {
                type $lock = crosslock_core::RawTas;
                $body
            }
            LockKind::Ticket => {
                type $lock = crosslock_core::RawTicket;
                $body
            }
            LockKind::Mcs => {
                type $lock = crosslock_core::RawMcs;
                $body
            }
            LockKind::QSpinLock => {
                type $lock = crosslock_core::RawQSpin;
                $body
            }
            // Waits best where nothing is known.
            LockKind::PvQSpinLock | LockKind::Auto => {
                type $lock = crosslock_core::RawPvQSpin;
                $body
            }
            LockKind::Busted => {
                type $lock = $crate::torture::Busted;
                $body
            }
        }
    }};
}
pub(crate) use with_lock;
