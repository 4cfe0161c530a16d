//! Real virtual machines for tests of locks in shared memory, so that a test reads like a unit test:
//!
//! ```no_run
//! # #[cfg(feature = "host")] {
//! use vmlab::{Config, Cpu, Guest};
//!
//! let guest = Guest::boot(Config::new(Cpu::X86_64))?;
//! let hello = guest.run(["/bin/vmlab-drill", "echo", "hello"])?.success()?;
//! assert_eq!(hello.stdout, b"hello\n");
//! # }
//! # Ok::<(), vmlab::Error>(())
//! ```
//!
//! | room | what |
//! |---|---|
//! | [`setup`] | makes the machine ready once: packages, kernels, a compiler for aarch64 |
//! | [`Kernel`], [`toolchain`] | what guests boot, and programs built for them |
//! | [`Config`], [`Guest`], [`Program`] | a guest to be, a running guest, a program in it |
//! | [`BareMetal`] | a guest that is a kernel of our own, without an operating system |
//! | [`nested`] | a guest that has KVM itself, and can have a lab inside |
//! | [`Qmp`] | QEMU's monitor |
//! | [`wire`] | what host and guest say to each other; all that a guest's side knows of this crate |

#[cfg(feature = "host")]
mod accel;
#[cfg(feature = "host")]
mod arch;
#[cfg(feature = "host")]
mod cache;
#[cfg(feature = "host")]
mod error;
#[cfg(feature = "host")]
mod external;
#[cfg(feature = "host")]
mod guest;
#[cfg(feature = "host")]
mod initramfs;
#[cfg(feature = "host")]
mod kernel;
#[cfg(feature = "host")]
pub mod nested;
#[cfg(feature = "host")]
mod qmp;
#[cfg(feature = "host")]
pub mod setup;
#[cfg(feature = "host")]
pub mod toolchain;
pub mod wire;

#[cfg(feature = "host")]
pub use accel::Accel;
#[cfg(feature = "host")]
pub use arch::{Arch, Cpu};
#[cfg(feature = "host")]
pub use cache::Cache;
#[cfg(feature = "host")]
pub use error::{Error, Evidence, Result};
#[cfg(feature = "host")]
pub use guest::{BareMetal, Config, Ended, Guest, Invocation, Output, Program, Running};
#[cfg(feature = "host")]
pub use kernel::{Kernel, Module};
#[cfg(feature = "host")]
pub use qmp::{Qmp, QmpError};
pub use wire::Exit;

#[cfg(all(doctest, feature = "host"))]
#[doc = include_str!("../../../docs/lab.md")]
mod page {}
