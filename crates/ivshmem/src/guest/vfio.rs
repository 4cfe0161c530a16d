//! The few requests of Linux's VFIO that a driver of this device needs; `Documentation/driver-api/vfio.rst` of the kernel.
//!
//! `vfio-ioctls` has them, too, but only for devices that it has opened itself, and takes their interrupts away when it is dropped. Here a
//! descriptor may come from another process, and others go on using it.

use core::ffi::{CStr, c_void};
use core::ptr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, readlinkat_raw};
use rustix::io::{Errno, pread, pwrite};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP, VFIO_TYPE, vfio_group_status, vfio_irq_info,
    vfio_region_info,
};

/// `VFIO_BASE`.
const BASE: u8 = 100;

/// Numbers of requests, counted from there; the bindings have none.
const GET_API_VERSION: u8 = 0;
const CHECK_EXTENSION: u8 = 1;
const SET_IOMMU: u8 = 2;
const GROUP_GET_STATUS: u8 = 3;
const GROUP_SET_CONTAINER: u8 = 4;
const GROUP_GET_DEVICE_FD: u8 = 6;
const DEVICE_GET_REGION_INFO: u8 = 8;
const DEVICE_GET_IRQ_INFO: u8 = 9;
const DEVICE_SET_IRQS: u8 = 10;

/// What the kernel calls the descriptor of a device.
pub(super) const DEVICE_LINK: &[u8] = b"anon_inode:[vfio-device]";

/// One request, as it goes to the kernel.
struct Request {
    number: u8,
    argument: *mut c_void,
}

// SAFETY: who makes a request promises that the argument is what its number wants; the answer is a number.
#[expect(unsafe_code, reason = "requests of VFIO")]
unsafe impl Ioctl for Request {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        const { assert!(BASE as u32 == VFIO_BASE) };
        opcode::none(VFIO_TYPE, BASE + self.number)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(answer)
    }
}

/// A request whose argument is a number, or nothing.
fn ask(fd: impl AsFd, number: u8, argument: usize) -> Result<i32, Errno> {
    debug_assert!([GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU].contains(&number), "it wants an address");
    let request = Request { number, argument: ptr::without_provenance_mut(argument) };
    // SAFETY: these requests read and write no memory of this process.
    #[expect(unsafe_code, reason = "requests of VFIO")]
    unsafe {
        ioctl(fd, request)
    }
}

/// A request whose argument is a structure.
///
/// # Safety
/// `T` is what the request wants, with its size in `argsz`.
#[expect(unsafe_code, reason = "requests of VFIO")]
unsafe fn exchange<T: ?Sized>(fd: impl AsFd, number: u8, argument: &mut T) -> Result<i32, Errno> {
    let request = Request { number, argument: ptr::from_mut(argument).cast() };
    // SAFETY: by this function's contract; the borrow outlives the request.
    unsafe { ioctl(fd, request) }
}

const fn argsz<T>() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
    let size = size_of::<T>() as u32;
    size
}

/// `/dev/vfio/vfio`: the address space of the devices in it. Here it stays empty: this device reads and writes no memory by itself.
pub(super) struct Container(pub(super) OwnedFd);

impl Container {
    pub(super) fn api_version(&self) -> Result<i32, Errno> {
        ask(&self.0, GET_API_VERSION, 0)
    }

    pub(super) fn supports(&self, iommu: u32) -> Result<bool, Errno> {
        ask(&self.0, CHECK_EXTENSION, iommu as usize).map(|answer| answer > 0)
    }

    pub(super) fn set_iommu(&self, iommu: u32) -> Result<(), Errno> {
        ask(&self.0, SET_IOMMU, iommu as usize).map(drop)
    }
}

/// `/dev/vfio/N`: the devices that cannot be told apart by the IOMMU. Open once at a time; each open device keeps it open.
pub(super) struct Group(pub(super) OwnedFd);

impl Group {
    /// The flags of `vfio_group_status`.
    pub(super) fn flags(&self) -> Result<u32, Errno> {
        let mut status = vfio_group_status { argsz: argsz::<vfio_group_status>(), flags: 0 };
        // SAFETY: the structure of this request.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        unsafe { exchange(&self.0, GROUP_GET_STATUS, &mut status) }?;
        Ok(status.flags)
    }

    pub(super) fn set_container(&self, container: &Container) -> Result<(), Errno> {
        let mut fd = container.0.as_raw_fd();
        // SAFETY: the request wants the address of a descriptor.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        unsafe { exchange(&self.0, GROUP_SET_CONTAINER, &mut fd) }.map(drop)
    }

    /// Opens a device of the group, by its address.
    pub(super) fn open(&self, address: &CStr) -> Result<OpenDevice, Errno> {
        let request = Request { number: GROUP_GET_DEVICE_FD, argument: address.as_ptr().cast_mut().cast() };
        // SAFETY: the request wants a text with a zero at its end, and only reads it.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        let fd = unsafe { ioctl(&self.0, request) }?;
        // SAFETY: the kernel has just given it, and nobody else has it.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(OpenDevice(fd))
    }
}

/// Where a region of a device lies in its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) can_be_mapped: bool,
}

/// A device that VFIO has opened, here or in another process.
#[derive(Debug)]
pub(super) struct OpenDevice(OwnedFd);

impl OpenDevice {
    /// What somebody sent, if it is one: a request to any other file could have any effect. Otherwise says what it is.
    pub(super) fn received(fd: OwnedFd) -> Result<Self, String> {
        let mut target = [0; 64];
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let len = readlinkat_raw(CWD, path, &mut target).map_err(|error| error.to_string())?;
        let found = &target[..len];
        if found == DEVICE_LINK { Ok(Self(fd)) } else { Err(String::from_utf8_lossy(found).into_owned()) }
    }

    pub(super) fn region(&self, index: u32) -> Result<Region, Errno> {
        let mut info =
            vfio_region_info { argsz: argsz::<vfio_region_info>(), index, ..vfio_region_info::default() };
        // SAFETY: the structure of this request.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        unsafe { exchange(&self.0, DEVICE_GET_REGION_INFO, &mut info) }?;
        let can_be_mapped = info.flags & VFIO_REGION_INFO_FLAG_MMAP != 0;
        Ok(Region { offset: info.offset, size: info.size, can_be_mapped })
    }

    /// How many MSI-X vectors it has.
    pub(super) fn vectors(&self) -> Result<u32, Errno> {
        let index = VFIO_PCI_MSIX_IRQ_INDEX;
        let mut info = vfio_irq_info { argsz: argsz::<vfio_irq_info>(), index, ..vfio_irq_info::default() };
        // SAFETY: the structure of this request.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        unsafe { exchange(&self.0, DEVICE_GET_IRQ_INFO, &mut info) }?;
        Ok(info.count)
    }

    /// Has each MSI-X vector, from 0, write to an eventfd; whoever had them before hears them no more.
    pub(super) fn set_vectors<'a>(
        &self,
        eventfds: impl ExactSizeIterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), Errno> {
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let count = u32::try_from(eventfds.len()).map_err(|_| Errno::INVAL)?;
        // vfio_irq_set, which ends with as many descriptors: all of it words.
        let mut set = vec![0, flags, VFIO_PCI_MSIX_IRQ_INDEX, 0, count];
        set.extend(eventfds.map(|fd| fd.as_raw_fd().cast_unsigned()));
        set[0] = u32::try_from(set.len() * size_of::<u32>()).map_err(|_| Errno::INVAL)?;
        // SAFETY: the structure of this request: five words, then as many as the last of them says.
        #[expect(unsafe_code, reason = "requests of VFIO")]
        unsafe { exchange(&self.0, DEVICE_SET_IRQS, &mut *set) }.map(drop)
    }

    /// How its configuration space begins.
    pub(super) fn config<const N: usize>(&self) -> Result<[u8; N], Errno> {
        self.read(self.region(VFIO_PCI_CONFIG_REGION_INDEX)?, 0)
    }

    pub(super) fn read_config_u16(&self, register: u64) -> Result<u16, Errno> {
        self.read(self.region(VFIO_PCI_CONFIG_REGION_INDEX)?, register).map(u16::from_le_bytes)
    }

    pub(super) fn write_config_u16(&self, register: u64, value: u16) -> Result<(), Errno> {
        self.write(self.region(VFIO_PCI_CONFIG_REGION_INDEX)?, register, value.to_le_bytes())
    }

    /// Reads from a region; one access of the bus where `N` is a register's size.
    pub(super) fn read<const N: usize>(&self, region: Region, at: u64) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        match pread(&self.0, &mut bytes, region.offset + at)? {
            count if count == N => Ok(bytes),
            _ => Err(Errno::IO),
        }
    }

    /// Writes to a region; one access of the bus where `N` is a register's size.
    pub(super) fn write<const N: usize>(&self, region: Region, at: u64, bytes: [u8; N]) -> Result<(), Errno> {
        match pwrite(&self.0, &bytes, region.offset + at)? {
            count if count == N => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

impl AsFd for OpenDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_of_devices_are_devices() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(OpenDevice::received(file.into()).unwrap_err(), "/dev/null");
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        assert_eq!(OpenDevice::received(bell).unwrap_err(), "anon_inode:[eventfd]");
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        // _IO(';', 100 + 10), from linux/vfio.h.
        assert_eq!(Request { number: DEVICE_SET_IRQS, argument: ptr::null_mut() }.opcode(), 0x3b6e);
    }
}
