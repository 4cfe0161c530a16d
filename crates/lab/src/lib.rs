#![doc = include_str!("../README.md")]

#[cfg(feature = "host")]
mod actor;
#[cfg(feature = "host")]
pub mod kernel;
#[cfg(feature = "host")]
pub mod nested;
#[cfg(feature = "host")]
mod outcome;
mod said;
#[cfg(feature = "host")]
pub mod scenarios;
#[cfg(feature = "host")]
mod server;
#[cfg(feature = "host")]
mod stage;

#[cfg(feature = "host")]
pub use actor::Actor;
#[cfg(feature = "host")]
pub use outcome::{Outcome, table};
pub use said::{Counted, Field, Got, Said};
#[cfg(feature = "host")]
pub use server::Server;
#[cfg(feature = "host")]
pub use stage::{Machine, Place, Stage};
