//! What can go wrong.

use thiserror::Error;

use crate::hosted::cpu::MAX_CPUS;
use crate::hosted::interrupt::LINES;

/// A CPU, a line or a signal that is not to be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// As many threads have one.
    #[error("all {MAX_CPUS} CPUs are in use")]
    NoCpu,
    /// That CPU is another thread's, or was left with something disabled.
    #[error("CPU {number} is in use")]
    CpuInUse {
        /// Which one.
        number: usize,
    },
    /// The thread has a CPU already.
    #[error("this thread is CPU {number} already")]
    IsCpu {
        /// Which one.
        number: usize,
    },
    /// Nobody is that CPU now.
    #[error("CPU {number} is offline")]
    Offline {
        /// Which one.
        number: usize,
    },
    /// There is no such line.
    #[error("line {line} of {LINES}")]
    NoSuchLine {
        /// Which one.
        line: u32,
    },
    /// The line has a handler.
    #[error("line {line} is in use")]
    LineInUse {
        /// Which one.
        line: u32,
    },
    /// The operating system refused.
    #[error("{call} failed")]
    Os {
        /// What was called.
        call: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
