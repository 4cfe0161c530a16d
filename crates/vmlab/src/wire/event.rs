//! What the guest tells.

use std::fmt;
use std::io::{Read, Write};

use super::frame::Frame;
use super::{ProgramId, WireError};

/// The version of this protocol; both sides are built from one source, so another one means a stale build.
pub const VERSION: u32 = 1;

/// From the guest to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest is up, and speaks this [`VERSION`].
    Hello(u32),
    /// The program runs, under this process id of the guest.
    Started(u32),
    /// The program could not be started, because of this.
    Failed(String),
    /// Bytes from its standard output.
    Stdout(Vec<u8>),
    /// Its standard output ends here: everybody who had it has closed it.
    StdoutEnd,
    /// Bytes from its standard error.
    Stderr(Vec<u8>),
    /// Its standard error ends here.
    StderrEnd,
    /// It has ended; output of processes that it left behind may still come.
    Exited(Exit),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether all was well: status 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

const HELLO: u8 = 64;
const STARTED: u8 = 65;
const FAILED: u8 = 66;
const STDOUT: u8 = 67;
const STDOUT_END: u8 = 68;
const STDERR: u8 = 69;
const STDERR_END: u8 = 70;
const EXITED: u8 = 71;
const KILLED: u8 = 72;

impl Event {
    /// Sends it on behalf of `program`.
    ///
    /// # Errors
    /// The stream broke, or this is longer than a frame can be.
    pub fn write(&self, program: ProgramId, to: &mut impl Write) -> Result<(), WireError> {
        let (kind, payload) = match self {
            Self::Hello(version) => (HELLO, version.to_le_bytes().to_vec()),
            Self::Started(pid) => (STARTED, pid.to_le_bytes().to_vec()),
            Self::Failed(why) => (FAILED, why.clone().into_bytes()),
            Self::Stdout(bytes) => (STDOUT, bytes.clone()),
            Self::StdoutEnd => (STDOUT_END, Vec::new()),
            Self::Stderr(bytes) => (STDERR, bytes.clone()),
            Self::StderrEnd => (STDERR_END, Vec::new()),
            Self::Exited(Exit::Code(code)) => (EXITED, code.to_le_bytes().to_vec()),
            Self::Exited(Exit::Signal(number)) => (KILLED, number.to_le_bytes().to_vec()),
        };
        Frame { kind, program, payload }.write(to)
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream broke, or carries what is no event.
    pub fn read(from: &mut impl Read) -> Result<Option<(ProgramId, Self)>, WireError> {
        let Some(Frame { kind, program, payload }) = Frame::read(from)? else {
            return Ok(None);
        };
        let number = |kind| match payload.as_slice().try_into() {
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(WireError::Payload { kind, length: payload.len() }),
        };
        let event = match kind {
            HELLO => Self::Hello(u32::from_le_bytes(number("hello")?)),
            STARTED => Self::Started(u32::from_le_bytes(number("started")?)),
            FAILED => Self::Failed(String::from_utf8_lossy(&payload).into_owned()),
            STDOUT => Self::Stdout(payload),
            STDOUT_END => Self::StdoutEnd,
            STDERR => Self::Stderr(payload),
            STDERR_END => Self::StderrEnd,
            EXITED => Self::Exited(Exit::Code(i32::from_le_bytes(number("exited")?))),
            KILLED => Self::Exited(Exit::Signal(i32::from_le_bytes(number("killed")?))),
            other => return Err(WireError::Kind(other)),
        };
        Ok(Some((program, event)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_arrives(number: u32, status: i32, text: String, bytes: Vec<u8>) {
            let events = [
                Event::Hello(number),
                Event::Started(number),
                Event::Failed(text),
                Event::Stdout(bytes.clone()),
                Event::StdoutEnd,
                Event::Stderr(bytes),
                Event::StderrEnd,
                Event::Exited(Exit::Code(status)),
                Event::Exited(Exit::Signal(status)),
            ];
            let mut stream = Vec::new();
            for event in &events {
                event.write(3, &mut stream).unwrap();
            }
            let mut rest = &stream[..];
            for event in events {
                prop_assert_eq!(Event::read(&mut rest).unwrap(), Some((3, event)));
            }
            prop_assert!(Event::read(&mut rest).unwrap().is_none());
        }

        #[test]
        fn any_payload_is_survived(kind: u8, payload: Vec<u8>) {
            let mut bytes = Vec::new();
            Frame { kind, program: 1, payload }.write(&mut bytes).unwrap();
            let _ = Event::read(&mut &bytes[..]);
        }
    }
}
