#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(test, loom, shuttle)), no_std)]
#![warn(clippy::std_instead_of_core)]

#[cfg(all(test, loom))]
extern crate self as crosslock_core;

#[cfg(not(any(loom, shuttle)))]
mod api;
mod context;
mod error;
mod event;
mod hooks;
mod lock_hash;
mod mcs;
/// What the model checkers' tests share, here for those that reach inside.
#[cfg(all(test, loom))]
#[path = "../tests/model/mod.rs"]
mod model;
mod own_node;
mod per_cpu;
pub mod primitive;
mod pvqspinlock;
mod qspinlock;
mod raw;
mod robust;
pub mod select;
mod tas;
#[cfg(all(test, not(any(loom, shuttle))))]
mod testing;
mod ticket;

#[cfg(not(any(loom, shuttle)))]
pub use api::{Api, ConstContext};
pub use context::{Context, PvOps};
pub use error::Corrupted;
pub use event::Event;
pub use hooks::{Hooks, NoHooks, acquire_hooked, release_hooked, try_acquire_hooked};
pub use lock_hash::{HashEntry, LockKey};
pub use mcs::RawMcs;
pub use per_cpu::{CpuId, NODES_PER_CPU, NodeId, PerCpu};
pub use pvqspinlock::RawPvQSpin;
#[cfg(any(loom, shuttle))]
pub use qspinlock::transitions;
pub use qspinlock::{QWord, RawQSpin};
pub use raw::{LockType, RawLock};
pub use robust::{
    Condition, HAND_OVER_NS, Name, Ownership, READS, RawRobust, RawRobustRw, Refused, RobustOps, RobustStats,
    Seat,
};
pub use tas::RawTas;
pub use ticket::RawTicket;
