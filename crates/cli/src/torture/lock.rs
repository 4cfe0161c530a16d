//! The locks that can be tortured, by name.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::kind::LockKind;

/// A lock, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Of the family of spin locks.
    Spin(LockKind),
    /// `crosslock::Mutex`.
    Robust,
    /// The C library's.
    PthreadRobust,
    /// The negative control of `--kill`.
    Forgetful,
}

impl Lock {
    /// Whether the lock goes on when its owner is killed.
    pub(crate) fn survives(self) -> bool {
        !matches!(self, Self::Spin(_))
    }
}

impl ValueEnum for Lock {
    fn value_variants<'a>() -> &'a [Self] {
        use LockKind::{Auto, Busted, Mcs, PvQSpinLock, QSpinLock, Tas, Ticket};
        &[
            Self::Robust,
            Self::Spin(Tas),
            Self::Spin(Ticket),
            Self::Spin(Mcs),
            Self::Spin(QSpinLock),
            Self::Spin(PvQSpinLock),
            Self::Spin(Auto),
            Self::PthreadRobust,
            Self::Spin(Busted),
            Self::Forgetful,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Spin(kind) => return kind.to_possible_value(),
            Self::Robust => ("robust", "Survives whoever dies; waiters sleep"),
            Self::PthreadRobust => ("pthread_mutex_robust", "Process-shared robust mutex of the C library"),
            Self::Forgetful => ("forgetful", "Repairs nothing after a death: `--kill` must catch it"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// Evaluates `$body` with the type `$subject` of the lock that `$lock` names, with its arena.
macro_rules! with_subject {
    ($lock:expr, $subject:ident => $body:expr) => {{
        use $crate::torture::lock::Lock;
        match $lock {
            Lock::Spin(kind) => $crate::kind::with_lock!(kind, L => {
                type $subject = crosslock::SpinMutex<$crate::torture::arena::Words, L>;
                $body
            }),
            Lock::Robust => {
                type $subject = crosslock::Mutex<$crate::torture::arena::Words>;
                $body
            }
            Lock::PthreadRobust => {
                type $subject = $crate::torture::pthread::PthreadMutex;
                $body
            }
            Lock::Forgetful => {
                type $subject = $crate::torture::subject::Forgetful;
                $body
            }
        }
    }};
}
pub(crate) use with_subject;
