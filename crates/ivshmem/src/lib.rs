#![doc = include_str!("../README.md")]
//!
//! # Example
//!
//! A server, and a process that joins it:
//!
//! ```
//! use crosslock_ivshmem::{Client, PeerId, ServerOptions, Vector};
//! # use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
//! # let directory = tempfile::tempdir()?;
//! # let socket = &directory.path().join("ivshmem.sock");
//!
//! let memory = memfd_create("shared", MemfdFlags::CLOEXEC)?;
//! ftruncate(&memory, 1 << 20)?;
//! let server = ServerOptions::new().vectors(2).bind(socket, memory)?;
//! let stopper = server.stopper();
//! let serving = std::thread::spawn(move || server.run(&mut ()));
//!
//! let client = Client::connect(socket)?;
//! assert_eq!(client.memory_size(), 1 << 20);
//! client.ring(PeerId::SERVER, Vector::new(1))?;
//!
//! stopper.stop();
//! serving.join().unwrap()?;
//! assert!(!socket.exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The protocol, the order of events at a death, the limits and who is trusted with what: `docs/ivshmem.md`.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("crosslock-ivshmem needs Linux");

mod bell;
mod client;
mod credentials;
mod error;
mod events;
pub mod guest;
mod id;
mod line;
mod listener;
mod memory;
pub mod protocol;
mod server;
mod socket_file;
mod stopper;
mod wire;

pub use client::{Change, Client, ClientOptions};
pub use credentials::peer_process;
pub use error::{Error, Result};
pub use id::{PeerId, Vector};
pub use server::{Departure, Observer, Peers, Refusal, Server, ServerOptions};
pub use stopper::Stopper;
