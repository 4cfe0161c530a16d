//! What the host asks.

use std::io::{Read, Write};

use super::frame::Frame;
use super::{ProgramId, WireError};

/// From the host to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start a program under this number; answered by [`Event::Started`](super::Event::Started) or
    /// [`Event::Failed`](super::Event::Failed).
    Start(Start),
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// Its standard input ends here.
    StdinEnd,
    /// Send it this signal.
    Signal(i32),
}

/// A program to start. Nothing in it need be text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The program's path, then its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Its whole environment: names and values.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
}

const START: u8 = 1;
const STDIN: u8 = 2;
const STDIN_END: u8 = 3;
const SIGNAL: u8 = 4;

impl Request {
    /// Sends it on behalf of `program`.
    ///
    /// # Errors
    /// The stream broke, or this is longer than a frame can be.
    pub fn write(&self, program: ProgramId, to: &mut impl Write) -> Result<(), WireError> {
        let (kind, payload) = match self {
            Self::Start(start) => (START, start.encode()),
            Self::Stdin(bytes) => (STDIN, bytes.clone()),
            Self::StdinEnd => (STDIN_END, Vec::new()),
            Self::Signal(number) => (SIGNAL, number.to_le_bytes().to_vec()),
        };
        Frame { kind, program, payload }.write(to)
    }

    /// The next request; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream broke, or carries what is no request.
    pub fn read(from: &mut impl Read) -> Result<Option<(ProgramId, Self)>, WireError> {
        let Some(Frame { kind, program, payload }) = Frame::read(from)? else {
            return Ok(None);
        };
        let misfit = |kind| WireError::Payload { kind, length: payload.len() };
        let request = match kind {
            START => Self::Start(Start::decode(&payload).ok_or_else(|| misfit("start"))?),
            STDIN => Self::Stdin(payload),
            STDIN_END => Self::StdinEnd,
            SIGNAL => {
                let number = payload.as_slice().try_into().map_err(|_| misfit("signal"))?;
                Self::Signal(i32::from_le_bytes(number))
            }
            other => return Err(WireError::Kind(other)),
        };
        Ok(Some((program, request)))
    }
}

impl Start {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_count(&mut out, self.argv.len());
        for argument in &self.argv {
            put(&mut out, argument);
        }
        put_count(&mut out, self.env.len());
        for (name, value) in &self.env {
            put(&mut out, name);
            put(&mut out, value);
        }
        out
    }

    fn decode(mut from: &[u8]) -> Option<Self> {
        let from = &mut from;
        // Counts are not believed: memory is taken as elements arrive.
        let argv = (0..take_count(from)?).map(|_| take(from)).collect::<Option<Vec<_>>>()?;
        let env = (0..take_count(from)?).map(|_| Some((take(from)?, take(from)?))).collect::<Option<_>>()?;
        (from.is_empty() && !argv.is_empty()).then_some(Self { argv, env })
    }
}

/// A count or length; one that does not fit makes a frame that is refused for its length anyway.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend(bytes);
}

fn take_count(from: &mut &[u8]) -> Option<u32> {
    let (count, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u32::from_le_bytes(*count))
}

fn take(from: &mut &[u8]) -> Option<Vec<u8>> {
    let length = take_count(from)?;
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(request: &Request) -> Result<Option<(ProgramId, Request)>, WireError> {
        let mut bytes = Vec::new();
        request.write(7, &mut bytes).unwrap();
        Request::read(&mut &bytes[..])
    }

    #[test]
    fn a_count_without_elements_is_refused() {
        let payload = u32::MAX.to_le_bytes().to_vec();
        let mut bytes = Vec::new();
        Frame { kind: START, program: 1, payload }.write(&mut bytes).unwrap();
        assert!(matches!(
            Request::read(&mut &bytes[..]),
            Err(WireError::Payload { kind: "start", length: 4 })
        ));
    }

    #[test]
    fn a_start_of_nothing_is_refused() {
        assert!(through(&Request::Start(Start::default())).is_err());
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(
            argv in prop::collection::vec(any::<Vec<u8>>(), 1..5),
            env: Vec<(Vec<u8>, Vec<u8>)>,
            stdin: Vec<u8>,
            number: i32,
        ) {
            let start = Request::Start(Start { argv, env });
            for request in [start, Request::Stdin(stdin), Request::StdinEnd, Request::Signal(number)] {
                prop_assert_eq!(through(&request).unwrap(), Some((7, request)));
            }
        }

        #[test]
        fn any_payload_is_survived(kind: u8, payload: Vec<u8>) {
            let mut bytes = Vec::new();
            Frame { kind, program: 1, payload }.write(&mut bytes).unwrap();
            let _ = Request::read(&mut &bytes[..]);
        }
    }
}
