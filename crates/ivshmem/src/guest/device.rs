//! The device as the kernel shows it: a directory of sysfs.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::error::DeviceError;
use crate::error::Result;

/// ivshmem's numbers, as sysfs writes them.
const VENDOR: &str = "0x1af4";
const DEVICE: &str = "0x1110";

/// The driver that hands devices to programs.
const VFIO: &str = "vfio-pci";

/// The bits of the command register that matter here.
pub(super) const COMMAND: u64 = 0x04;
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
pub(super) const COMMAND_MASTER: u16 = 1 << 2;

/// BAR2 in the configuration space: 64 bits.
pub(super) const BAR2: u64 = 0x18;

/// Which of the two kinds of ivshmem device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ivshmem-plain`: memory, and nothing else.
    Plain,
    /// `ivshmem-doorbell`: memory, and interrupts between peers.
    Doorbell,
}

/// An ivshmem device of this machine, found in sysfs. Nothing is open.
///
/// ```no_run
/// use crosslock_ivshmem::guest::Device;
///
/// let device = Device::find()?;
/// device.enable()?;
/// let memory = device.open_memory()?; // to be mapped
/// # Ok::<(), crosslock_ivshmem::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `/sys/bus/pci`, but for tests.
    bus: PathBuf,
    address: Box<str>,
    kind: Kind,
    memory_size: u64,
}

impl Device {
    /// The only ivshmem device of this machine.
    ///
    /// # Errors
    /// [`DeviceError::None`], [`DeviceError::Several`]; [`DeviceError::File`] where there is no PCI bus.
    pub fn find() -> Result<Self> {
        Self::only(Self::all_on(Path::new("/sys/bus/pci"))?)
    }

    /// All ivshmem devices of this machine, by address.
    ///
    /// # Errors
    /// [`DeviceError::File`] where there is no PCI bus.
    pub fn all() -> Result<Vec<Self>> {
        Self::all_on(Path::new("/sys/bus/pci"))
    }

    /// The ivshmem device at an address as `lspci -D` shows it: `"0000:00:03.0"`.
    ///
    /// # Errors
    /// [`DeviceError::NotIvshmem`].
    pub fn at(address: &str) -> Result<Self> {
        Self::on(Path::new("/sys/bus/pci"), address)
    }

    fn only(mut found: Vec<Self>) -> Result<Self> {
        match (found.pop(), found.is_empty()) {
            (Some(device), true) => Ok(device),
            (None, _) => Err(DeviceError::None.into()),
            (Some(last), false) => {
                found.push(last);
                let addresses: Vec<&str> = found.iter().map(|device| &*device.address).collect();
                Err(DeviceError::Several { addresses: addresses.join(" and ").into() }.into())
            }
        }
    }

    fn all_on(bus: &Path) -> Result<Vec<Self>> {
        let devices = bus.join("devices");
        let refused = |error| file("read", &devices)(error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&devices).map_err(refused)? {
            let name = entry.map_err(refused)?.file_name();
            let Some(address) = name.to_str().filter(|address| is_ivshmem(&devices.join(address))) else {
                continue;
            };
            found.push(Self::on(bus, address)?);
        }
        found.sort_by(|one, other| one.address.cmp(&other.address));
        Ok(found)
    }

    pub(super) fn on(bus: &Path, address: &str) -> Result<Self> {
        let directory = bus.join("devices").join(address);
        // An address is one name: none that leads elsewhere.
        if address.is_empty() || address.contains('/') || !is_ivshmem(&directory) {
            return Err(DeviceError::NotIvshmem { address: address.into() }.into());
        }
        let resources = directory.join("resource");
        let text = fs::read_to_string(&resources).map_err(file("read", &resources))?;
        let unreadable = || DeviceError::Unreadable { path: label(&resources), found: text.as_str().into() };
        let bars = parse_resources(&text).ok_or_else(unreadable)?;
        let [_, vectors, memory] = bars;
        let kind = if vectors == 0 { Kind::Plain } else { Kind::Doorbell };
        if memory == 0 {
            return Err(unreadable().into());
        }
        Ok(Self { bus: bus.to_owned(), address: address.into(), kind, memory_size: memory })
    }

    /// Where it is on the bus: `0000:00:03.0`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How large its memory is, in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// The file of its memory, to be mapped: on x86 that without combined writes (`resource2`), elsewhere that with (`resource2_wc`),
    /// where there is one.
    ///
    /// On x86 combined writes are not in order, so a plain store would release nothing, wherever the hypervisor does as the guest asks.
    /// On arm64 the memory without them is a device's, where an unaligned access, or `memcpy`, ends the process; that with them is
    /// ordinary memory that is not cached, and as much out of order as any.
    #[must_use]
    pub fn memory_path(&self) -> PathBuf {
        let combining = self.file("resource2_wc");
        let is_x86 = cfg!(any(target_arch = "x86", target_arch = "x86_64"));
        if !is_x86 && combining.exists() { combining } else { self.file("resource2") }
    }

    /// Opens that file, for reading and writing. Only root may.
    ///
    /// # Errors
    /// [`DeviceError::File`].
    pub fn open_memory(&self) -> Result<OwnedFd> {
        let path = self.memory_path();
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| file("open", &path)(error.into()).into())
    }

    /// Switches the memory on, if it is not. Only root may.
    ///
    /// A device that a driver has is switched on by that driver, when it is opened; nevertheless this does it also then.
    ///
    /// # Errors
    /// [`DeviceError::File`].
    pub fn enable(&self) -> Result<()> {
        if self.driver()?.is_none() {
            // The kernel counts who wants it to be on: once is enough.
            if self.read("enable")?.trim() == "0" {
                self.write("enable", "1")?;
            }
            return Ok(());
        }
        let config = self.file("config");
        let open = || fs::File::options().read(true).write(true).open(&config);
        let device = open().map_err(file("open", &config))?;
        let mut bytes = [0; 2];
        rustix::io::pread(&device, &mut bytes, COMMAND)
            .map_err(|error| file("read", &config)(error.into()))?;
        let command = u16::from_le_bytes(bytes);
        if command & COMMAND_MEMORY == 0 {
            let command = (command | COMMAND_MEMORY).to_le_bytes();
            rustix::io::pwrite(&device, &command, COMMAND)
                .map_err(|error| file("write", &config)(error.into()))?;
        }
        Ok(())
    }

    /// The driver that has it.
    ///
    /// # Errors
    /// [`DeviceError::File`].
    pub fn driver(&self) -> Result<Option<String>> {
        let link = self.file("driver");
        match fs::read_link(&link) {
            Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", &link)(error).into()),
        }
    }

    /// Gives it to `vfio-pci`, if that does not have it. Only root may.
    ///
    /// # Errors
    /// [`DeviceError::NoIommu`], [`DeviceError::NoVfio`], [`DeviceError::OtherDriver`], [`DeviceError::NotTaken`],
    /// [`DeviceError::File`]: each says what to do.
    pub fn bind_to_vfio(&self) -> Result<()> {
        self.iommu_group()?;
        match self.driver()?.as_deref() {
            Some(VFIO) => return Ok(()),
            Some(driver) => {
                return Err(DeviceError::OtherDriver { address: self.label(), driver: driver.into() }.into());
            }
            None => {}
        }
        if !self.bus.join("drivers").join(VFIO).exists() {
            return Err(DeviceError::NoVfio.into());
        }
        self.write("driver_override", VFIO)?;
        let probe = self.bus.join("drivers_probe");
        fs::write(&probe, self.address.as_bytes()).map_err(file("write", &probe))?;
        match self.driver()?.as_deref() {
            Some(VFIO) => Ok(()),
            _ => Err(DeviceError::NotTaken { address: self.label() }.into()),
        }
    }

    /// Has nobody reset it from now on: a reset would switch the memory off under those who use it. Only root may. Before Linux 5.15
    /// the kernel cannot be told; where it knows no way to reset the device, nothing is to be done.
    ///
    /// # Errors
    /// [`DeviceError::File`].
    pub fn forbid_reset(&self) -> Result<()> {
        if !self.file("reset_method").exists() {
            return Ok(());
        }
        self.write("reset_method", "\n")
    }

    /// The number of its IOMMU group.
    pub(super) fn iommu_group(&self) -> Result<u32> {
        let link = self.file("iommu_group");
        let Ok(target) = fs::read_link(&link) else {
            return Err(DeviceError::NoIommu { address: self.label() }.into());
        };
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        name.parse().map_err(|_| DeviceError::Unreadable { path: label(&link), found: (*name).into() }.into())
    }

    /// How the configuration space begins, up to BAR2 and its other half.
    pub(super) fn config_header(&self) -> Result<[u8; CONFIG_HEADER]> {
        let path = self.file("config");
        let found = fs::read(&path).map_err(file("read", &path))?;
        found.first_chunk().copied().ok_or_else(|| {
            let found = format!("{} bytes", found.len()).into();
            DeviceError::Unreadable { path: label(&path), found }.into()
        })
    }

    /// For errors.
    pub(super) fn label(&self) -> Box<str> {
        self.address.clone()
    }

    /// For `map_err`: VFIO did not do `what`.
    pub(super) fn vfio<E: Into<std::io::Error>>(&self, what: &'static str) -> impl FnOnce(E) -> DeviceError {
        let address = self.label();
        move |source| DeviceError::Vfio { address, what, source: source.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bus.join("devices").join(&*self.address).join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        Ok(fs::read_to_string(&path).map_err(file("read", &path))?)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        Ok(fs::write(&path, text).map_err(file("write", &path))?)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Bytes of the configuration space up to the end of BAR2.
pub(super) const CONFIG_HEADER: usize = 0x20;

/// For `map_err`: `what` went wrong with the file `path`.
pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DeviceError {
    let path = label(path);
    move |source| DeviceError::File { what, path, source }
}

fn label(path: &Path) -> Box<str> {
    path.to_string_lossy().into()
}

fn is_ivshmem(directory: &Path) -> bool {
    let is = |file: &str, id| fs::read_to_string(directory.join(file)).is_ok_and(|text| text.trim() == id);
    is("vendor", VENDOR) && is("device", DEVICE)
}

/// The sizes of BAR0, BAR1 and BAR2, of the text of `resource`: one line each, `first last flags`.
fn parse_resources(text: &str) -> Option<[u64; 3]> {
    let mut lines = text.lines();
    let mut next = || {
        let mut words = lines.next()?.split_whitespace();
        let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (first, last, _flags) = (number()?, number()?, number()?);
        // All is zero where there is none.
        if last == 0 { Some(0) } else { last.checked_sub(first)?.checked_add(1) }
    };
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests;
