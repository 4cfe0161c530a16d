//! A segment's memory as this process sees it: the only module that makes references from offsets.
//!
//! Peers write the memory at any time, so only types that are atomic through and through may be seen by
//! reference ([`SharedLayout`]).

use core::ptr::NonNull;
use std::io;
use std::os::fd::BorrowedFd;

use crosslock_core::primitive::{AtomicU32, AtomicU64};
use crosslock_core::{HashEntry, PerCpu, RawRobust, RawRobustRw, Seat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Types that may be looked at while other processes write them.
///
/// # Safety
/// Atomics through and through (padding apart), valid for all bytes, without drop.
pub(crate) unsafe trait SharedLayout {}

// SAFETY: made of atomics; its methods check what they read.
unsafe impl SharedLayout for RawRobust {}
// SAFETY: as above.
unsafe impl SharedLayout for RawRobustRw {}
// SAFETY: an atomic integer.
unsafe impl SharedLayout for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl SharedLayout for AtomicU64 {}
// SAFETY: the core's shared structures, made of atomics; their users check what they read.
unsafe impl SharedLayout for PerCpu {}
// SAFETY: as above.
unsafe impl SharedLayout for HashEntry {}
// SAFETY: as above.
unsafe impl SharedLayout for Seat {}

/// A shared mapping of a whole segment, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; it is accessed through atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of the file.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps with nothing.
        let base = unsafe { mmap(core::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// The distance of `address` from the start of the mapping.
    #[inline]
    pub(crate) fn offset_of(&self, address: usize) -> usize {
        address.wrapping_sub(self.base.addr().get())
    }

    /// `len` bytes at `offset`.
    ///
    /// # Panics
    /// Where they are not inside: callers check offsets from shared memory before they come here.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "{len} bytes at {offset} of {}", self.len);
        // SAFETY: inside the mapping, as checked.
        unsafe { self.base.add(offset) }
    }

    /// The `T` at `offset`.
    ///
    /// # Panics
    /// As [`Mapping::slice`].
    #[inline]
    pub(crate) fn at<T: SharedLayout>(&self, offset: usize) -> &T {
        &self.slice(offset, 1)[0]
    }

    /// The `count` values at `offset`.
    ///
    /// # Panics
    /// Where they are not inside or not aligned: callers check offsets from shared memory before.
    #[inline]
    pub(crate) fn slice<T: SharedLayout>(&self, offset: usize, count: usize) -> &[T] {
        let start = self.bytes(offset, count.saturating_mul(size_of::<T>())).cast::<T>();
        assert!(start.is_aligned(), "offset {offset} is not aligned");
        // SAFETY: inside the mapping and aligned, as checked, and the mapping lives as long as the borrow;
        // `SharedLayout` allows a shared reference to what others write.
        unsafe { core::slice::from_raw_parts(start.as_ptr(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nobody has a reference any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        // Fails only for a range that is not page-aligned, which mmap does not give.
    }
}
