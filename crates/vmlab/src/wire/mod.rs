//! What a host and the server in its guest say to each other: frames on a stream of bytes.
//!
//! ```text
//! frame     u32 length of what follows | u8 kind | u32 program | payload          all little-endian
//! ```
//!
//! The host numbers the programs; many run at once, and their frames interleave. The guest speaks first,
//! once, with [`Event::Hello`]. Neither side trusts the other's lengths.

mod event;
mod frame;
mod request;

pub use event::{Event, Exit, VERSION};
pub use frame::{MAX_CHUNK, MAX_PAYLOAD};
pub use request::{Request, Start};

/// The name of the virtio-serial port that carries the frames.
pub const PORT: &str = "vmlab";

/// A program's number, chosen by the host.
pub type ProgramId = u32;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream broke, also in the middle of a frame.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// A frame's length cannot be.
    #[error("a frame of {length} bytes; from {min} to {max} can be")]
    Length {
        /// The length said, in bytes.
        length: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A frame's kind is none of this direction.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A frame's payload does not fit its kind.
    #[error("a {kind} frame whose payload of {length} bytes does not fit it")]
    Payload {
        /// Which kind.
        kind: &'static str,
        /// The length of the payload in bytes.
        length: usize,
    },
}
