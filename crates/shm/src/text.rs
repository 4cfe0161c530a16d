//! Short texts in shared memory: UTF-8 in 64-bit words, padded with zero bytes.

use crosslock_core::primitive::{AtomicU64, Ordering};

/// A text of at most `8 * WORDS` bytes, private to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Text<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Text<WORDS> {
    /// The longest beginning of `text` that has room.
    pub(crate) fn truncated(text: &str) -> Self {
        let mut words = [0; WORDS];
        let text = &text.as_bytes()[..text.floor_char_boundary(8 * WORDS)];
        for (word, bytes) in words.iter_mut().zip(text.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        Self(words)
    }

    pub(crate) fn load(from: &[AtomicU64; WORDS]) -> Self {
        Self(core::array::from_fn(|index| from[index].load(Ordering::Relaxed)))
    }

    pub(crate) fn store(self, to: &[AtomicU64; WORDS]) {
        for (word, to) in self.0.iter().zip(to) {
            to.store(*word, Ordering::Relaxed);
        }
    }
}

/// Whatever the bytes are, something that can be shown: peers may have written anything.
impl<const WORDS: usize> core::fmt::Display for Text<WORDS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        for shown in String::from_utf8_lossy(&bytes[..len]).chars() {
            if shown.is_control() {
                write!(f, "{}", shown.escape_default())?;
            } else {
                write!(f, "{shown}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_the_round_trip() {
        for text in ["", "a", "12345678", "Grüße, Welt", "123456789012345678901234"] {
            let words = [const { AtomicU64::new(u64::MAX) }; 3];
            Text::truncated(text).store(&words);
            assert_eq!(Text::load(&words).to_string(), text);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(Text::<1>::truncated("1234567ü").to_string(), "1234567");
    }

    #[test]
    fn garbage_can_be_shown() {
        assert_eq!(Text([u64::from_le_bytes(*b"\xffa\x1b[31m\0")]).to_string(), "\u{fffd}a\\u{1b}[31m");
    }
}
