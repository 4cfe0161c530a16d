//! A named object that is a lock, and behind it the data that it guards: what all mutexes are made of.
//!
//! ```text
//!   object    0   the lock, on cache lines of its own
//!         64, 128 the data, in whole 64-bit words
//! ```

use core::ptr::NonNull;

use crosslock_core::LockType;

use crate::contents::Contents;
use crate::copy;
use crate::directory::{Kind, MAX_KIND_LEN, ObjectType};
use crate::error::{Error, Result};
use crate::header::LINE;
use crate::plain::Plain;
use crate::segment::{Segment, SegmentContext};

/// Of the object.
const ALIGN: u32 = 64;
const _: () = assert!(ALIGN as usize == LINE);

pub(crate) struct Guarded<L, T> {
    segment: Segment,
    lock: NonNull<L>,
    contents: Contents<T>,
}

// SAFETY: the words behind the pointers live as long as `segment`; the lock is `Sync` by `LockType`, and the data is
// atomic words.
unsafe impl<L: LockType, T> Send for Guarded<L, T> {}
// SAFETY: as above.
unsafe impl<L: LockType, T> Sync for Guarded<L, T> {}

impl<L: LockType, T: Plain> Guarded<L, T> {
    const DATA_OFFSET: usize = size_of::<L>().next_multiple_of(LINE);

    fn object_type() -> ObjectType {
        const {
            assert!(align_of::<L>() <= LINE, "the lock is aligned to more than a line");
            assert!(align_of::<T>() <= LINE, "the data is aligned to more than a line");
            assert!(L::NAME.len() <= MAX_KIND_LEN, "the name of the lock is too long");
        }
        ObjectType {
            kind: Kind::new(L::NAME),
            fingerprint: T::FINGERPRINT,
            size: (Self::DATA_OFFSET + copy::words::<T>() * size_of::<u64>()) as u64,
            align: ALIGN,
        }
    }

    /// The object `name`, created around `initial` if there is none.
    pub(crate) fn create(segment: &Segment, name: &str, initial: T) -> Result<Self> {
        let cx = segment.context()?;
        let offset = cx.find_or_create(name, &Self::object_type(), |offset| {
            // The lock is free as it is, all zero.
            Contents::at(cx.mapping(), offset + Self::DATA_OFFSET).set(initial);
        })?;
        Ok(Self::at(segment, offset))
    }

    /// The object `name`, which exists.
    pub(crate) fn open(segment: &Segment, name: &str) -> Result<Self> {
        let wanted = Self::object_type();
        let offset = segment.context()?.find(name, &wanted)?;
        let offset = offset.ok_or(Error::NoSuchObject { name: name.into(), kind: wanted.kind })?;
        Ok(Self::at(segment, offset))
    }

    /// `offset` is that of a checked object of [`Guarded::object_type`].
    fn at(segment: &Segment, offset: usize) -> Self {
        let mapping = segment.inner().mapping();
        Self {
            segment: segment.clone(),
            lock: mapping.bytes(offset, size_of::<L>()).cast(),
            contents: Contents::at(mapping, offset + Self::DATA_OFFSET),
        }
    }
}

impl<L: LockType, T> Guarded<L, T> {
    #[inline]
    pub(crate) fn raw(&self) -> &L {
        // SAFETY: checked to be inside the segment and aligned, and mapped as long as `segment`; `LockType`
        // is atomics through and through, valid for all bytes.
        unsafe { self.lock.as_ref() }
    }
}

impl<L, T> Guarded<L, T> {
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    #[inline]
    pub(crate) fn cx(&self) -> &SegmentContext {
        self.segment.inner()
    }

    #[inline]
    pub(crate) fn contents(&self) -> &Contents<T> {
        &self.contents
    }
}
