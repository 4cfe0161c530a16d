//! Data that can be shared: plain, the same on every machine, and valid whatever its bytes are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A type whose values may lie in a segment: every pattern of bytes is one, none of its bytes is padding, it
/// has no pointers, and its size does not depend on the architecture.
///
/// Implemented for the integers and floating-point numbers of fixed size, and for arrays of them. For a
/// struct use [`plain!`](crate::plain). `bool` and `char` are not plain, for not all bytes are one: use a
/// `u8` or `u32` and say what its values mean. `usize` is not, for its size differs between machines.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + 'static {
    /// Tells types apart whose layouts differ: a hash of field names and field types. Whoever opens an
    /// object must have the same as its creator.
    const FINGERPRINT: u64;
}

macro_rules! plain_numbers {
    ($($number:ident)*) => {$(
        impl Plain for $number {
            const FINGERPRINT: u64 = fingerprint(stringify!($number), &[]);
        }
    )*};
}

plain_numbers!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

impl<T: Plain, const N: usize> Plain for [T; N] {
    const FINGERPRINT: u64 = fingerprint("array", &[("item", T::FINGERPRINT), ("length", N as u64)]);
}

/// FNV-1a, 64 bits, over the name of a structure and the names and fingerprints of its fields.
///
/// For [`plain!`](crate::plain); of use to those who implement [`Plain`] by hand.
///
/// ```
/// use crosslock::fingerprint;
/// assert_ne!(fingerprint("struct", &[("x", 1)]), fingerprint("struct", &[("y", 1)]));
/// ```
#[must_use]
pub const fn fingerprint(name: &str, fields: &[(&str, u64)]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

    let mut hash = text(OFFSET_BASIS, name);
    let mut index = 0;
    while index < fields.len() {
        hash = bytes(text(hash, fields[index].0), &fields[index].1.to_le_bytes());
        index += 1;
    }
    hash
}

/// With an end mark, which no UTF-8 contains: so no two lists of texts look the same.
const fn text(hash: u64, text: &str) -> u64 {
    bytes(bytes(hash, text.as_bytes()), &[0xff])
}

const fn bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    hash
}

/// Declares a struct that is [`Plain`](crate::Plain): `repr(C)`, its fields plain, without padding.
///
/// ```
/// crosslock::plain! {
///     /// Where it is.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub struct Point {
///         /// Metres.
///         pub x: f64,
///         cell: [u32; 2],
///     }
/// }
///
/// let segment = crosslock::Options::new().create_memfd("points")?;
/// let point = segment.mutex("here", Point { x: 0.5, cell: [1, 2] })?;
/// assert_eq!(point.lock()?.get(), Point { x: 0.5, cell: [1, 2] });
/// # Ok::<(), crosslock::Error>(())
/// ```
///
/// Padding does not compile, for peers would read what was in the bytes before; name it, as a field:
///
/// ```compile_fail
/// crosslock::plain! { struct Padded { small: u8, large: u64 } }
/// ```
///
/// Nor does what is not plain:
///
/// ```compile_fail
/// crosslock::plain! { struct Flag { is_set: bool } }
/// ```
#[macro_export]
macro_rules! plain {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            $crate::zerocopy::FromBytes,
            $crate::zerocopy::IntoBytes,
            $crate::zerocopy::Immutable,
            $crate::zerocopy::KnownLayout,
        )]
        #[zerocopy(crate = "crosslock::zerocopy")]
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty),+
        }

        impl $crate::Plain for $name {
            const FINGERPRINT: u64 = $crate::fingerprint(
                "struct",
                &[$((stringify!($field), <$ty as $crate::Plain>::FINGERPRINT)),+],
            );
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::Plain;

    crate::plain! { struct Point { x: u64, y: [u32; 2] } }
    crate::plain! { struct SameShape { x: u64, y: [u32; 2] } }
    crate::plain! { struct Renamed { x: u64, z: [u32; 2] } }
    crate::plain! { struct Swapped { y: [u32; 2], x: u64 } }
    crate::plain! { struct Retyped { x: u64, y: [i32; 2] } }
    crate::plain! { struct Nested { point: Point } }

    #[test]
    fn fingerprints_tell_structures_apart() {
        assert_eq!(Point::FINGERPRINT, SameShape::FINGERPRINT);
        let all = [
            Point::FINGERPRINT,
            Renamed::FINGERPRINT,
            Swapped::FINGERPRINT,
            Retyped::FINGERPRINT,
            Nested::FINGERPRINT,
            <[u32; 2]>::FINGERPRINT,
            <[u32; 3]>::FINGERPRINT,
            <[[u32; 2]; 3]>::FINGERPRINT,
            u64::FINGERPRINT,
            i64::FINGERPRINT,
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn fingerprints_are_part_of_the_abi() {
        assert_eq!(u64::FINGERPRINT, 0xbfdb_c0e5_4a44_6817);
        assert_eq!(Point::FINGERPRINT, 0xac44_1fc4_a0ff_450d);
    }
}
