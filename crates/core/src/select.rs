//! Which algorithm to run, by what the platform offers: the kernel's rules at boot.
//!
//! ```text
//!   nopvspin, real-time hint, or one CPU ----------> native
//!   else no hypervisor ----------------------------> native
//!   else the hypervisor can wake a halted CPU -----> paravirtual
//!   else ------------------------------------------> test-and-set
//! ```
//! A queue is fair, and fairness is what kills it when the hypervisor preempts the one whose turn it is;
//! so where waiters cannot sleep, an unfair lock is better. After `kvm_spinlock_init` and
//! `virt_spin_lock` of Linux.

use core::fmt;

/// What the platform says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// CPUs can be preempted by something below: a hypervisor, or, for threads, the scheduler.
    pub preemptible: bool,
    /// A waiting CPU can be suspended and woken (`KVM_FEATURE_PV_UNHALT`, a futex).
    pub unhalt: bool,
    /// CPUs are dedicated and never preempted (`KVM_HINTS_REALTIME`).
    pub realtime: bool,
    /// How many CPUs can contend.
    pub cpus: u32,
    /// The user said `nopvspin`.
    pub nopvspin: bool,
}

/// The algorithm behind a queued lock word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// [`RawQSpin`](crate::RawQSpin).
    Native,
    /// [`RawPvQSpin`](crate::RawPvQSpin).
    Paravirtual,
    /// [`RawTas`](crate::RawTas).
    TestAndSet,
}

/// A mode and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The algorithm.
    pub mode: Mode,
    /// The rule that decided.
    pub reason: &'static str,
}

impl Features {
    /// Applies the rules.
    ///
    /// ```
    /// use crosslock_core::select::{Features, Mode};
    /// let guest = Features { preemptible: true, unhalt: true, realtime: false, cpus: 4, nopvspin: false };
    /// assert_eq!(guest.choose().mode, Mode::Paravirtual);
    /// assert_eq!(Features { nopvspin: true, ..guest }.choose().mode, Mode::Native);
    /// assert_eq!(Features { unhalt: false, ..guest }.choose().mode, Mode::TestAndSet);
    /// ```
    #[must_use]
    pub const fn choose(self) -> Choice {
        let (mode, reason) = match self {
            Self { nopvspin: true, .. } => (Mode::Native, "forced by nopvspin"),
            Self { preemptible: false, .. } => (Mode::Native, "nothing preempts the CPUs"),
            Self { realtime: true, .. } => (Mode::Native, "real-time hint: CPUs are dedicated"),
            Self { cpus: 0 | 1, .. } => (Mode::Native, "a single CPU"),
            Self { unhalt: true, .. } => {
                (Mode::Paravirtual, "CPUs may be preempted, and waiters can be woken")
            }
            Self { .. } => (Mode::TestAndSet, "CPUs may be preempted, and waiters cannot be woken"),
        };
        Choice { mode, reason }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.mode {
            Mode::Native => "PV spinlocks disabled",
            Mode::Paravirtual => "PV spinlocks enabled",
            Mode::TestAndSet => "PV spinlocks unavailable, using test-and-set",
        };
        write!(f, "{state}: {}", self.reason)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const GUEST: Features =
        Features { preemptible: true, unhalt: true, realtime: false, cpus: 4, nopvspin: false };

    #[test]
    fn every_rule_decides_alone() {
        let cases = [
            (GUEST, Mode::Paravirtual),
            (Features { nopvspin: true, ..GUEST }, Mode::Native),
            (Features { realtime: true, ..GUEST }, Mode::Native),
            (Features { cpus: 1, ..GUEST }, Mode::Native),
            (Features { preemptible: false, ..GUEST }, Mode::Native),
            (Features { unhalt: false, ..GUEST }, Mode::TestAndSet),
            // The hints to stay native hold where waiters cannot be woken, too.
            (Features { unhalt: false, realtime: true, ..GUEST }, Mode::Native),
        ];
        for (features, mode) in cases {
            assert_eq!(features.choose().mode, mode, "{features:?}");
        }
    }
}
