//! The device in the hands of this process.
//!
//! # When the last descriptor closes
//! Linux then resets the device if it can, and writes its command register twice: for a moment its memory answers nobody
//! (`vfio_pci_core_disable`). Whoever has it mapped reads ones and loses what he writes. Hence
//!
//! 1. nobody may reset it ([`Device::forbid_reset`]), before it is opened: opening resets, too;
//! 2. whoever maps the memory holds a descriptor of the device for longer, so the last one closes after the last mapping;
//! 3. who comes later, and finds the device open, takes a copy of the descriptor of one who holds it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_GROUP_FLAGS_CONTAINER_SET, VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU,
};

use super::device::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, Device, Kind};
use super::doorbell::Doorbell;
use super::error::DeviceError;
use super::holder::{Search, search};
use super::vfio::{Container, Group, OpenDevice};
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::id::{PeerId, Vector};
use crate::protocol::MAX_VECTORS;

/// How long to look for somebody who holds a device that is open: the descriptor may be on its way between two processes.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

/// An ivshmem-doorbell device, driven by this process: its doorbell, and its interrupts as eventfds.
///
/// One process of a machine has the interrupts: the one that has opened it last. Processes that only ring have the device from an
/// [`Agent`](super::Agent).
///
/// ```no_run
/// use std::time::Duration;
/// use crosslock_ivshmem::guest::{Device, Driver};
/// use crosslock_ivshmem::{PeerId, Vector};
///
/// let driver = Driver::open(&Device::find()?)?;
/// driver.ring(PeerId::SERVER, Vector::new(1))?;
/// if driver.wait(Vector::new(0), Some(Duration::from_secs(1)))? {
///     println!("somebody has rung peer {}", driver.id());
/// }
/// # Ok::<(), crosslock_ivshmem::Error>(())
/// ```
#[derive(Debug)]
pub struct Driver {
    doorbell: Doorbell,
    id: PeerId,
    bells: Vec<Bell>,
    had_from: Option<u32>,
}

impl Driver {
    /// Gives the device to `vfio-pci`, forbids its reset, opens it and takes its interrupts. Only root may.
    ///
    /// Where another process has it open, this one takes a copy of that descriptor, and **the interrupts**: so be sure
    /// that there is no other driver, as an [`Agent`](super::Agent) is by the name of its socket. Every vector is heard once at the beginning,
    /// for what was rung before went nowhere.
    ///
    /// # Errors
    /// [`Error::Device`], with all that can be wrong with a device.
    pub fn open(device: &Device) -> Result<Self> {
        if device.kind() == Kind::Plain {
            return Err(DeviceError::NoDoorbell { address: device.label() }.into());
        }
        device.bind_to_vfio()?;
        device.forbid_reset()?;
        let (opened, had_from) = open_or_copy(device)?;

        let command = opened.read_config_u16(COMMAND).map_err(device.vfio("show the command register"))?;
        let wanted = command | COMMAND_MEMORY | COMMAND_MASTER;
        if command != wanted {
            // VFIO leaves bus mastering off, and without it an interrupt is a write that never arrives.
            opened.write_config_u16(COMMAND, wanted).map_err(device.vfio("set the command register"))?;
        }
        let vectors = opened.vectors().map_err(device.vfio("count the vectors"))?;
        let count = u16::try_from(vectors).ok().filter(|count| (1..=MAX_VECTORS).contains(count));
        let count = count.ok_or(DeviceError::NoVectors { address: device.label(), found: vectors })?;
        let doorbell = Doorbell::new(opened).map_err(device.vfio("give the registers"))?;
        let found = doorbell.position().map_err(device.vfio("read IVPosition"))?;
        let id =
            u16::try_from(found).map_err(|_| DeviceError::NoPosition { address: device.label(), found })?;

        let bells = (0..count).map(|_| Bell::new()).collect::<Result<Vec<_>, Errno>>();
        let bells = bells.map_err(Error::io("make an eventfd"))?;
        doorbell
            .device()
            .set_vectors(bells.iter().map(Bell::as_fd))
            .map_err(device.vfio("hand out the interrupts"))?;
        // From here on nothing is missed, and what was before is made up for.
        bells.iter().try_for_each(Bell::ring).map_err(Error::io("ring"))?;
        tracing::info!(device = %device, peer = %id, vectors = count, mapped = doorbell.is_mapped(), had_from, "driving");
        Ok(Self { doorbell, id: PeerId::new(id), bells, had_from })
    }

    /// Which peer this machine is.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// How many vectors each peer has.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        // As many as were counted.
        u16::try_from(self.bells.len()).unwrap_or(u16::MAX)
    }

    /// The process from which the device was had, if it was open already.
    #[must_use]
    pub const fn had_from(&self) -> Option<u32> {
        self.had_from
    }

    /// Whether ringing is one store, or else a system call: where the registers share their page with something else.
    #[must_use]
    pub fn rings_by_a_store(&self) -> bool {
        self.doorbell.is_mapped()
    }

    /// Rings a vector of a peer. That there is no such peer is not said: the device ignores it.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`]; [`Error::Io`] where the device does not answer any more.
    pub fn ring(&self, peer: PeerId, vector: Vector) -> Result<()> {
        ring(&self.doorbell, self.vectors(), peer, vector)
    }

    /// Sleeps until somebody rings `vector` of this machine, and takes the rings; gives whether that was before the end of `timeout`.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`], [`Error::Io`].
    pub fn wait(&self, vector: Vector, timeout: Option<Duration>) -> Result<bool> {
        self.find(vector)?.wait(timeout).map_err(Error::io("wait for a ring"))
    }

    /// The eventfd of a vector, to be polled together with others; [`wait`](Self::wait) with no time takes the rings.
    ///
    /// # Errors
    /// [`Error::NoSuchVector`].
    pub fn bell(&self, vector: Vector) -> Result<BorrowedFd<'_>> {
        self.find(vector).map(Bell::as_fd)
    }

    pub(super) fn bells(&self) -> &[Bell] {
        &self.bells
    }

    pub(super) fn find(&self, vector: Vector) -> Result<&Bell> {
        let no_such = Error::NoSuchVector { peer: self.id, vector, vectors: self.bells.len() };
        self.bells.get(vector.index()).ok_or(no_such)
    }
}

impl AsFd for Driver {
    /// The device, as VFIO has opened it. As long as any process has it open, the memory answers.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell.device().as_fd()
    }
}

/// Rings one of as many vectors as each peer has.
pub(super) fn ring(doorbell: &Doorbell, vectors: u16, peer: PeerId, vector: Vector) -> Result<()> {
    if vector.get() >= vectors {
        return Err(Error::NoSuchVector { peer, vector, vectors: vectors.into() });
    }
    doorbell.ring(peer, vector).map_err(Error::io("ring"))
}

/// Opens the device, or copies the descriptor of who has; says whose.
fn open_or_copy(device: &Device) -> Result<(OpenDevice, Option<u32>)> {
    let start = Instant::now();
    loop {
        if let Some(opened) = open_anew(device)? {
            return Ok((opened, None));
        }
        match search(device)? {
            Search::Found(copy, pid) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                return Ok((copy, Some(pid)));
            }
            Search::Nobody { hidden } if start.elapsed() > SEARCH_LIMIT => {
                return Err(DeviceError::Busy { address: device.label(), hidden }.into());
            }
            Search::Nobody { .. } => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Nothing where somebody has the group open.
fn open_anew(device: &Device) -> Result<Option<OpenDevice>> {
    let open = |path: &str| -> Result<Option<OwnedFd>> {
        match rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::BUSY) => Ok(None),
            Err(error) => Err(super::device::file("open", Path::new(path))(error.into()).into()),
        }
    };
    let number = device.iommu_group()?;
    let Some(group) = open(&format!("/dev/vfio/{number}"))? else { return Ok(None) };
    let group = Group(group);
    let flags = group.flags().map_err(device.vfio("show the group"))?;
    if flags & VFIO_GROUP_FLAGS_CONTAINER_SET != 0 {
        // A kernel that lets a group be opened again shows in this way that its device is open.
        return Ok(None);
    }
    if flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(DeviceError::GroupNotViable { address: device.label(), group: number }.into());
    }
    // Neither container nor group is needed any more when the device is open: it keeps both.
    let Some(container) = open("/dev/vfio/vfio")? else { return Ok(None) };
    let container = Container(container);
    let version = container.api_version().map_err(device.vfio("say its version"))?;
    if version != 0 {
        return Err(DeviceError::OtherVfio { what: "API version", found: version, expected: 0 }.into());
    }
    group.set_container(&container).map_err(device.vfio("put the group into a container"))?;
    let newer = container.supports(VFIO_TYPE1v2_IOMMU).map_err(device.vfio("say what it can"))?;
    let iommu = if newer { VFIO_TYPE1v2_IOMMU } else { VFIO_TYPE1_IOMMU };
    container.set_iommu(iommu).map_err(device.vfio("switch the IOMMU on"))?;
    let address =
        CString::new(device.address()).map_err(|_| DeviceError::NotIvshmem { address: device.label() })?;
    group.open(&address).map(Some).map_err(|error| device.vfio("open the device")(error).into())
}
