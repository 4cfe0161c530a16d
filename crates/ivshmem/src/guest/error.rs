//! What can go wrong with the device in a guest, said so that a person knows what to do.

use std::io;

use thiserror::Error;

use crate::id::Vector;

/// Why an ivshmem device of this guest cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is none.
    #[error(
        "this machine has no ivshmem device (PCI 1af4:1110); give it one: -device ivshmem-doorbell or ivshmem-plain"
    )]
    None,
    /// There are several, and nobody said which.
    #[error("this machine has several ivshmem devices, {addresses}; say which")]
    Several {
        /// Their addresses.
        addresses: Box<str>,
    },
    /// Something else has that address, or nothing.
    #[error("there is no ivshmem device at {address} (PCI 1af4:1110)")]
    NotIvshmem {
        /// The address that was asked for.
        address: Box<str>,
    },
    /// A file of sysfs says what it never says.
    #[error("cannot understand {path}: {found:?}")]
    Unreadable {
        /// The file.
        path: Box<str>,
        /// What is in it.
        found: Box<str>,
    },
    /// The device has no doorbell.
    #[error(
        "{address} is an ivshmem-plain device: it has memory, but no doorbell; use -device ivshmem-doorbell"
    )]
    NoDoorbell {
        /// The device's address.
        address: Box<str>,
    },
    /// Nothing translates the device's addresses, so its interrupts cannot be given to a program.
    #[error(
        "{address} is in no IOMMU group; give the machine an IOMMU (x86-64: -M q35,kernel-irqchip=split -device intel-iommu,caching-mode=on with intremap=on, under KVM intremap=off, and the kernel argument intel_iommu=on; arm64: -M virt,iommu=smmuv3)"
    )]
    NoIommu {
        /// The device's address.
        address: Box<str>,
    },
    /// The kernel has no `vfio-pci`.
    #[error("the driver vfio-pci is not loaded; modprobe vfio-pci")]
    NoVfio,
    /// Another driver has the device.
    #[error(
        "the driver {driver} has {address}; take it away first: echo {address} > /sys/bus/pci/drivers/{driver}/unbind"
    )]
    OtherDriver {
        /// The device's address.
        address: Box<str>,
        /// The driver's name.
        driver: Box<str>,
    },
    /// `vfio-pci` did not take the device.
    #[error("vfio-pci did not take {address}; the kernel's log says why")]
    NotTaken {
        /// The device's address.
        address: Box<str>,
    },
    /// Devices of the same IOMMU group have drivers of the kernel's own.
    #[error(
        "IOMMU group {group} of {address} has devices that the kernel drives; put the device on a bus of its own, or give those to vfio-pci, too"
    )]
    GroupNotViable {
        /// The device's address.
        address: Box<str>,
        /// The group's number.
        group: u32,
    },
    /// The device is open somewhere where it cannot be had from.
    #[error(
        "{address} is open, but no process was found to have it from; {hidden} could not be asked (that needs root), and one in another pid namespace cannot be seen"
    )]
    Busy {
        /// The device's address.
        address: Box<str>,
        /// How many processes did not let themselves be asked.
        hidden: usize,
    },
    /// The kernel has another VFIO.
    #[error("this kernel's VFIO has {what} = {found}, {expected} is needed")]
    OtherVfio {
        /// What was asked.
        what: &'static str,
        /// The answer.
        found: i32,
        /// What it must be.
        expected: i32,
    },
    /// The device does not say who it is.
    #[error("{address} has IVPosition {found:#x}, which is no peer's id; is it switched on?")]
    NoPosition {
        /// The device's address.
        address: Box<str>,
        /// What the register says.
        found: u32,
    },
    /// The device has fewer or more interrupts than ivshmem's have.
    #[error(
        "{address} has {found} MSI-X vectors, 1 to 2048 are possible; is it bound to vfio-pci, with vectors=?"
    )]
    NoVectors {
        /// The device's address.
        address: Box<str>,
        /// How many.
        found: u32,
    },
    /// A descriptor is none of an ivshmem device that VFIO has opened.
    #[error("the descriptor is not that of an ivshmem device, opened through VFIO, but {found}")]
    NotADevice {
        /// What it is.
        found: Box<str>,
    },
    /// A descriptor is none of an eventfd.
    #[error("what the agent gave as the bell of vector {vector} is not an eventfd")]
    NotAnEventfd {
        /// Whose interrupts were to write to it.
        vector: Vector,
    },
    /// Whoever answered is no agent of this kind.
    #[error("{socket} is not answered by an agent of this version: {what} was {found:#x}")]
    NotAnAgent {
        /// The path.
        socket: Box<str>,
        /// What was wrong.
        what: &'static str,
        /// What was said.
        found: i64,
    },
    /// The agent hung up before all was said.
    #[error("the agent at {socket} hung up; it had no room, or has just ended; try again")]
    HungUp {
        /// The path.
        socket: Box<str>,
    },
    /// The agent has not answered in time.
    #[error("the agent at {socket} did not answer in {waited_ms} ms; is it stopped?")]
    NoAnswer {
        /// The path.
        socket: Box<str>,
        /// How long this process has waited, in milliseconds.
        waited_ms: u64,
    },
    /// A file of the device cannot be used.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What failed.
        what: &'static str,
        /// The file.
        path: Box<str>,
        /// The reason.
        source: io::Error,
    },
    /// VFIO refused.
    #[error("{address}: VFIO does not {what}: {source}")]
    Vfio {
        /// The device's address.
        address: Box<str>,
        /// What failed.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}
