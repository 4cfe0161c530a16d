//! Frames as such: a length, a kind, a program and bytes.

use std::io::{ErrorKind, Read, Write};

use super::{ProgramId, WireError};

/// The most bytes that a frame carries beside its kind and program.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// The most bytes of a program's input or output that a sender puts into one frame.
pub const MAX_CHUNK: usize = 32 << 10;

/// Kind and program.
const PREFIX: usize = 1 + 4;

/// A frame whose payload nobody has looked at yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) program: ProgramId,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Writes the whole frame at once, so that frames of several threads can only interleave whole.
    pub(super) fn write(&self, to: &mut impl Write) -> Result<(), WireError> {
        let length = check(PREFIX + self.payload.len())?;
        let mut bytes = Vec::with_capacity(4 + PREFIX + self.payload.len());
        bytes.extend(length.to_le_bytes());
        bytes.push(self.kind);
        bytes.extend(self.program.to_le_bytes());
        bytes.extend(&self.payload);
        to.write_all(&bytes)?;
        Ok(to.flush()?)
    }

    /// The next frame; `None` where the stream ends between two.
    pub(super) fn read(from: &mut impl Read) -> Result<Option<Self>, WireError> {
        let mut length = [0; 4];
        if !read_or_end(from, &mut length)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(length);
        check(usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut prefix = [0; PREFIX];
        from.read_exact(&mut prefix)?;
        let [kind, program @ ..] = prefix;
        let mut payload = vec![0; length as usize - PREFIX];
        from.read_exact(&mut payload)?;
        Ok(Some(Self { kind, program: u32::from_le_bytes(program), payload }))
    }
}

fn check(length: usize) -> Result<u32, WireError> {
    let max = PREFIX + MAX_PAYLOAD;
    match u32::try_from(length) {
        Ok(fits) if (PREFIX..=max).contains(&length) => Ok(fits),
        _ => Err(WireError::Length { length, min: PREFIX, max }),
    }
}

/// Fills `buffer`; `false` where the stream ends before its first byte.
fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool, WireError> {
    loop {
        match from.read(&mut buffer[..1]) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    from.read_exact(&mut buffer[1..])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_end_between_frames_is_the_end_and_one_inside_is_an_error() {
        let frame = Frame { kind: 3, program: 9, payload: b"\x00\xff\n".to_vec() };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        for cut in 1..bytes.len() {
            assert!(matches!(Frame::read(&mut &bytes[..cut]), Err(WireError::Io(_))), "cut at {cut}");
        }
        let mut rest = &bytes[..];
        assert_eq!(Frame::read(&mut rest).unwrap(), Some(frame));
        assert_eq!(Frame::read(&mut rest).unwrap(), None);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_any_memory_is_taken() {
        for length in [0u32, 4, u32::try_from(PREFIX + MAX_PAYLOAD + 1).unwrap(), u32::MAX] {
            let found = Frame::read(&mut &length.to_le_bytes()[..]);
            assert!(matches!(found, Err(WireError::Length { .. })), "{length}: {found:?}");
        }
        let long = Frame { kind: 0, program: 0, payload: vec![0; MAX_PAYLOAD + 1] };
        assert!(matches!(long.write(&mut Vec::new()), Err(WireError::Length { .. })));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind: u8, program: u32, payload: Vec<u8>) {
            let frame = Frame { kind, program, payload };
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            prop_assert_eq!(Frame::read(&mut &bytes[..]).unwrap(), Some(frame));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Ok(Some(_)) = Frame::read(&mut rest) {}
        }
    }
}
