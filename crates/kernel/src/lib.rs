#![doc = include_str!("../README.md")]
// The model checkers take what they check from its file, and no more.
#![cfg(not(any(loom, shuttle)))]
#![cfg_attr(not(any(test, feature = "hosted")), no_std)]
#![warn(clippy::std_instead_of_core)]

mod arch;
mod cpu_state;
mod debug;
mod form;
mod hooks;
#[cfg(all(feature = "hosted", target_os = "linux"))]
pub mod hosted;
mod kind;
mod local;
mod lock;
mod marker;
mod may_sleep;
mod platform;
pub mod preempt_count;
mod qrwlock;
mod report;
mod rw_spinlock;
mod sleeping;
mod softirq;
mod spinning;
mod up;

pub use arch::{ArchSpinLock, ExcludesItself, Failure};
pub use cpu_state::CpuState;
pub use crosslock_core::NoHooks;
pub use form::{Bh, Form, FormKind, Irq, IrqSave, Plain};
pub use hooks::{Access, LockHooks, Operation};
pub use kind::Kind;
pub use local::{
    BhGuard, IrqGuard, MigrateGuard, PreemptGuard, local_bh_disable, local_irq_save, migrate_disable,
    preempt_disable,
};
pub use lock::{Guard, Lock};
pub use may_sleep::MaySleep;
pub use platform::Platform;
pub use report::{OtherSite, Problem, Report, Severity};
pub use rw_spinlock::{Mode, Read, RwGuard, RwSpinLock, Write};
pub use sleeping::{SleepLock, Sleeping};
pub use softirq::{SOFTIRQS, hardirq, nmi, raise_softirq};
pub use spinning::{RawSpinLock, RawSpinLockGuard, SpinLock, SpinLockGuard, Spinning};
pub use up::{Up, UpUnchecked};
