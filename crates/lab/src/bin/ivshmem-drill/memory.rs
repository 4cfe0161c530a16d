//! The memory of a device, mapped.

use core::ptr::NonNull;
use std::os::fd::AsFd;

use anyhow::Context as _;
use crosslock_core::primitive::AtomicU64;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

pub(crate) struct Memory {
    base: NonNull<u8>,
    size: usize,
}

impl Memory {
    pub(crate) fn map(fd: impl AsFd, size: u64) -> anyhow::Result<Self> {
        let size = usize::try_from(size)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses, disturbs nothing.
        let base = unsafe { mmap(core::ptr::null_mut(), size, access, MapFlags::SHARED, fd, 0) };
        let base = base.context("cannot map the memory")?;
        Ok(Self { base: NonNull::new(base.cast()).context("mapped at 0")?, size })
    }

    /// The word at an offset in bytes.
    pub(crate) fn word(&self, offset: usize) -> anyhow::Result<&AtomicU64> {
        let fits = offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= self.size);
        fits.then_some(()).with_context(|| format!("no word at {offset}"))?;
        // SAFETY: within the mapping.
        let word = unsafe { self.base.add(offset) }.cast::<AtomicU64>();
        // SAFETY: mapped as long as this lives, aligned, and only accessed as atomic words.
        Ok(unsafe { word.as_ref() })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; references into it have ended.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
        debug_assert_eq!(unmapped, Ok(()), "it was mapped");
    }
}
