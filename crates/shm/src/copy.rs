//! Copies between private values and memory that others may write at the same time.
//!
//! All accesses to an object's data are `Relaxed` atomic 64-bit words, also where the value ends within one:
//! no two accesses ever have different sizes, and a peer that writes without the lock costs a wrong value,
//! not undefined behaviour. The lock orders everything.

use crosslock_core::primitive::{AtomicU64, Ordering};

use crate::plain::Plain;

const WORD: usize = size_of::<u64>();

/// How many words the data of a `T` occupies.
pub(crate) const fn words<T>() -> usize {
    size_of::<T>().div_ceil(WORD)
}

/// Reads a value. `from` has [`words`] words.
#[inline]
pub(crate) fn load<T: Plain>(from: &[AtomicU64]) -> T {
    let mut value = T::new_zeroed();
    for (bytes, word) in value.as_mut_bytes().chunks_mut(WORD).zip(from) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..bytes.len()]);
    }
    value
}

/// Writes a value. `to` has [`words`] words.
#[inline]
pub(crate) fn store<T: Plain>(to: &[AtomicU64], value: &T) {
    for (bytes, word) in value.as_bytes().chunks(WORD).zip(to) {
        let mut padded = [0; WORD];
        padded[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<const N: usize>() {
        let value: [u8; N] = core::array::from_fn(|index| b'a' + (index % 26).to_le_bytes()[0]);
        let memory: Vec<_> = (0..words::<[u8; N]>()).map(|_| AtomicU64::new(u64::MAX)).collect();
        store(&memory, &value);
        assert_eq!(load::<[u8; N]>(&memory), value);
    }

    #[test]
    fn values_of_every_size_survive_the_round_trip() {
        round_trip::<1>();
        round_trip::<7>();
        round_trip::<8>();
        round_trip::<9>();
        round_trip::<16>();
        round_trip::<63>();
    }
}
