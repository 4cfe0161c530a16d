//! The doorbell register: how a guest rings.
//!
//! # Order
//! ```text
//!   who rings                           who is rung
//!     store into the memory    [W]        woken by the interrupt: returns from poll or read
//!     fence                    [F]        load from the memory   [R]
//!     store into the register  [D]
//! ```
//! R sees W. The memory may be mapped with combined writes, and the register is a device's: neither need keep its order with the other, so F
//! is a full fence (x86: `mfence`, which also empties the buffers of combined writes; arm64: `dmb ish`). On the other side
//! there is a system call between the interrupt and R, and nothing to be done.

use core::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;

use super::vfio::{OpenDevice, Region};
use crate::id::{PeerId, Vector};

/// Registers in BAR0.
const POSITION: u8 = 8;
const DOORBELL: u8 = 12;

/// The register, and the device, which stays open as long as this lives.
#[derive(Debug)]
pub(super) struct Doorbell {
    device: OpenDevice,
    bar: Region,
    page: Option<Page>,
}

impl Doorbell {
    /// Finds the register of an open device.
    pub(super) fn new(device: OpenDevice) -> Result<Self, Errno> {
        let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        if bar.size < u64::from(DOORBELL) + 4 {
            return Err(Errno::NXIO);
        }
        // A BAR that shares its page with another cannot be mapped: it is written through the descriptor.
        let page = bar.can_be_mapped.then(|| Page::map(&device, bar)).transpose()?;
        Ok(Self { device, bar, page })
    }

    pub(super) fn device(&self) -> &OpenDevice {
        &self.device
    }

    /// What `IVPosition` says.
    pub(super) fn position(&self) -> Result<u32, Errno> {
        self.device.read(self.bar, POSITION.into()).map(u32::from_le_bytes)
    }

    /// Whether ringing needs no system call.
    pub(super) fn is_mapped(&self) -> bool {
        self.page.is_some()
    }

    /// Rings. Nothing is said of peers that there are not.
    pub(super) fn ring(&self, peer: PeerId, vector: Vector) -> Result<(), Errno> {
        let value = peer.doorbell(vector);
        // [F] above; pairs with the interrupt.
        #[expect(
            clippy::disallowed_methods,
            reason = "this crate has no atomics to be modelled, and no other fence"
        )]
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        match &self.page {
            Some(page) => {
                page.write_doorbell(value);
                Ok(())
            }
            None => self.device.write(self.bar, DOORBELL.into(), value.to_le_bytes()),
        }
    }
}

/// The page of BAR0.
#[derive(Debug)]
struct Page {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a register of 32 bits that takes stores from anywhere, each whole.
#[expect(unsafe_code, reason = "a mapped register")]
unsafe impl Send for Page {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a mapped register")]
unsafe impl Sync for Page {}

impl Page {
    fn map(device: &OpenDevice, bar: Region) -> Result<Self, Errno> {
        let len = rustix::param::page_size();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses, disturbs nothing.
        #[expect(unsafe_code, reason = "a mapped register")]
        let base = unsafe { mmap(core::ptr::null_mut(), len, access, MapFlags::SHARED, device, bar.offset) }?;
        NonNull::new(base.cast()).map(|base| Self { base, len }).ok_or(Errno::NOMEM)
    }

    /// One store of 32 bits. The register is little-endian.
    fn write_doorbell(&self, value: u32) {
        // SAFETY: less than a page from the beginning of the mapping.
        #[expect(unsafe_code, reason = "a mapped register")]
        let register = unsafe { self.base.add(DOORBELL.into()) }.cast::<u32>();
        // SAFETY: mapped as long as this lives, and aligned; stores there change no memory of this process.
        #[expect(unsafe_code, reason = "a mapped register")]
        unsafe {
            store(register, value.to_le());
        }
    }
}

/// Stores by an instruction that a hypervisor can carry out: it must see in the syndrome of the trap what is stored, which excludes the
/// addressing modes that also change a register, and a compiler may choose those (as Google's `safe-mmio` explains; that
/// wants the only pointer for a store, here there are many).
///
/// # Safety
/// `register` is mapped and aligned.
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "a mapped register")]
unsafe fn store(register: NonNull<u32>, value: u32) {
    // SAFETY: by this function's contract.
    unsafe {
        core::arch::asm!("str {value:w}, [{register}]", value = in(reg) value, register = in(reg) register.as_ptr(), options(nostack, preserves_flags));
    }
}

/// Stores, once and whole.
///
/// # Safety
/// `register` is mapped and aligned.
#[cfg(not(target_arch = "aarch64"))]
#[expect(unsafe_code, reason = "a mapped register")]
unsafe fn store(register: NonNull<u32>, value: u32) {
    // SAFETY: by this function's contract.
    unsafe { register.write_volatile(value) }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody has an address in it.
        #[expect(unsafe_code, reason = "a mapped register")]
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, Ok(()), "it was mapped");
    }
}
