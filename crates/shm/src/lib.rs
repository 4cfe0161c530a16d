#![doc = include_str!("../README.md")]
//!
//! # Example
//!
//! Every process that runs this adds 1, whoever comes first and however many run at once:
//!
//! ```
//! use crosslock::Segment;
//!
//! # let name = &format!("doc-{}", std::process::id());
//! let segment = Segment::open_or_create(name)?;
//! let visits = segment.mutex("visits", 0u64)?;
//! let count = visits.lock()?.update(|n| {
//!     *n += 1;
//!     *n
//! });
//! assert_eq!(count, 1);
//! Segment::remove(name)?;
//! # Ok::<(), crosslock::Error>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("crosslock needs Linux; crosslock-core does not");

extern crate self as crosslock;

mod agent;
mod alive;
mod barrier;
mod bells;
mod contents;
mod context;
mod copy;
mod description;
mod device;
mod directory;
mod domain;
mod error;
mod file;
mod futex;
mod guarded;
#[cfg(feature = "ivshmem")]
mod guest;
mod header;
mod home;
mod inspect;
mod lease;
mod lock_error;
mod locks;
mod mapping;
mod mutex;
mod name;
mod options;
mod participant;
mod place;
mod plain;
mod registry;
mod robust_context;
mod rwlock;
mod segment;
mod spin_mutex;
mod tenure;
mod text;
mod thread;

pub use agent::Agent;
pub use barrier::Release;
pub use contents::Contents;
pub use crosslock_core;
pub use directory::{Kind, ObjectType};
pub use domain::{DomainId, DomainInfo};
pub use error::{Error, Result};
pub use inspect::{Identity, Liveness, ObjectInfo, Participant};
pub use lock_api;
pub use lock_error::{LockError, Suspect};
pub use locks::{LockInfo, LockWords, Party, Repaired, Waiter};
pub use mutex::{Guard, LockResult, Mutex};
pub use options::Options;
pub use plain::{Plain, fingerprint};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use segment::{Segment, SegmentContext};
pub use spin_mutex::{SpinGuard, SpinMutex};
pub use thread::{RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket, ThreadContext};
#[doc(hidden)]
pub use zerocopy;

/// The examples of the project's README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeExamples;
