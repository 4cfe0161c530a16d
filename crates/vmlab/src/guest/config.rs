//! A guest to be.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::accel::Accel;
use crate::arch::Cpu;
use crate::error::{Error, Result};
use crate::initramfs::Image;
use crate::kernel::Module;

/// What a guest shall be like. [`Guest::boot`](super::Guest::boot) makes it so.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    pub(super) name: String,
    pub(super) cpu: Cpu,
    pub(super) cpu_model: Option<String>,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) shared: Vec<Shared>,
    pub(super) iommu: bool,
    pub(super) modules: Vec<String>,
    bindings: Vec<Binding>,
    files: Vec<GuestFile>,
    pub(super) kernel_arguments: Vec<String>,
    pub(super) qemu_arguments: Vec<OsString>,
    pub(super) accel: Option<Accel>,
    pub(super) boot_limit: Duration,
}

/// An ivshmem device.
#[derive(Clone, Debug)]
pub(super) enum Shared {
    Plain { path: PathBuf, bytes: u64 },
    Doorbell { socket: PathBuf, vectors: u32 },
}

#[derive(Clone, Debug)]
struct Binding {
    vendor: u16,
    device: u16,
    driver: String,
}

#[derive(Clone, Debug)]
struct GuestFile {
    path: String,
    mode: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// What init itself needs to reach the host.
pub(crate) const ALWAYS: [&str; 2] = ["virtio_pci", "virtio_console"];

/// What gives devices to programs.
pub(crate) const VFIO: [&str; 2] = ["vfio_iommu_type1", "vfio_pci"];

/// The module that must be told to do without remapped interrupts, and how.
const UNSAFE: (&str, &str) = ("vfio_iommu_type1", "allow_unsafe_interrupts=1");

/// Whether the emulated IOMMU remaps interrupts. Under KVM it must not: QEMU asks KVM for the routes of ivshmem's interrupts when the
/// guest enables MSI-X. The vectors have no address yet then, which the remapping takes for an error, and QEMU leaves all of them out.
pub(super) fn remaps_interrupts(accel: Accel) -> bool {
    accel == Accel::Tcg
}

/// ivshmem's numbers on the PCI bus.
const IVSHMEM: (u16, u16) = (0x1af4, 0x1110);

impl Config {
    /// A guest with two virtual CPUs, 256 MiB of memory, no network and nothing shared, which must be up
    /// within a minute.
    pub fn new(cpu: Cpu) -> Self {
        Self {
            name: cpu.name().to_owned(),
            cpu,
            cpu_model: None,
            cpus: 2,
            memory_mib: 256,
            shared: Vec::new(),
            iommu: false,
            modules: Vec::new(),
            bindings: Vec::new(),
            files: Vec::new(),
            kernel_arguments: Vec::new(),
            qemu_arguments: Vec::new(),
            accel: None,
            boot_limit: Duration::from_secs(60),
        }
    }

    /// What logs and errors call it; otherwise they call it after its processor.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// So many virtual CPUs. With one, QEMU is told that more could come: the emulator does without real
    /// atomics otherwise, and would race with other processes on shared memory.
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// QEMU's name for a model of processor, with its properties, instead of the usual one: `"EPYC,+svm"`.
    pub fn cpu_model(mut self, model: impl Into<String>) -> Self {
        self.cpu_model = Some(model.into());
        self
    }

    /// Its memory, in MiB. The files that it boots with lie in there, too.
    pub fn memory_mib(mut self, mebibytes: u32) -> Self {
        self.memory_mib = mebibytes;
        self
    }

    /// An ivshmem device without interrupts: the file `path` is its memory, `bytes` long, a power of two.
    /// QEMU creates the file if need be.
    pub fn ivshmem_plain(mut self, path: impl Into<PathBuf>, bytes: u64) -> Self {
        self.shared.push(Shared::Plain { path: path.into(), bytes });
        self
    }

    /// An ivshmem device with interrupts: a server that listens on `socket` gives its memory, and `vectors`
    /// doorbells for each peer.
    pub fn ivshmem_doorbell(mut self, socket: impl Into<PathBuf>, vectors: u32) -> Self {
        self.shared.push(Shared::Doorbell { socket: socket.into(), vectors });
        self
    }

    /// An emulated IOMMU, and the ivshmem devices in the hands of `vfio-pci`: so a program in the guest can
    /// have their interrupts.
    pub fn vfio(self) -> Self {
        let (vendor, device) = IVSHMEM;
        self.iommu().modules(VFIO).bind(vendor, device, "vfio-pci")
    }

    /// An emulated IOMMU that remaps interrupts, too, unless KVM runs the guest.
    pub fn iommu(mut self) -> Self {
        self.iommu = true;
        self
    }

    /// Modules to load at boot, with all that they depend on.
    pub fn modules(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.modules.extend(names.into_iter().map(Into::into));
        self
    }

    /// Has `driver` take every PCI device of these numbers at boot, when the modules are loaded.
    pub fn bind(mut self, vendor: u16, device: u16, driver: impl Into<String>) -> Self {
        self.bindings.push(Binding { vendor, device, driver: driver.into() });
        self
    }

    /// A program of this machine, to be there as `path`. It must be static.
    pub fn program(self, path: impl Into<String>, from: impl Into<PathBuf>) -> Self {
        self.add(path, 0o755, Source::Host(from.into()))
    }

    /// A file with these bytes, to be there as `path`.
    pub fn file(self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.add(path, 0o644, Source::Bytes(bytes.into()))
    }

    fn add(mut self, path: impl Into<String>, mode: u32, source: Source) -> Self {
        self.files.push(GuestFile { path: path.into(), mode, source });
        self
    }

    /// One more argument for the kernel.
    pub fn kernel_argument(mut self, argument: impl Into<String>) -> Self {
        self.kernel_arguments.push(argument.into());
        self
    }

    /// More arguments for QEMU.
    pub fn qemu_arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.qemu_arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// What executes it, instead of the [best](Accel::best).
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = Some(accel);
        self
    }

    /// How long it may take until it is up.
    pub fn boot_limit(mut self, limit: Duration) -> Self {
        self.boot_limit = limit;
        self
    }

    /// Which modules to load, by name.
    pub(super) fn all_modules(&self) -> Vec<&str> {
        ALWAYS.into_iter().chain(self.modules.iter().map(String::as_str)).collect()
    }

    /// The image that it boots with. `modules` are in the order in which they are loaded.
    pub(super) fn image(&self, accel: Accel, init: &Path, drill: &Path, modules: &[Module]) -> Result<Image> {
        let mut image = Image::default();
        image.copy("/init", 0o755, init)?;
        image.copy("/bin/vmlab-drill", 0o755, drill)?;
        let mut plan = String::new();
        for module in modules {
            let path = format!("/lib/modules/{}.ko", module.name());
            image.add(&path, 0o644, module.read()?)?;
            plan += &format!("module {path}");
            if module.name() == UNSAFE.0 && !remaps_interrupts(accel) {
                plan += &format!(" {}", UNSAFE.1);
            }
            plan += "\n";
        }
        for Binding { vendor, device, driver } in &self.bindings {
            plan += &format!("bind {vendor:04x}:{device:04x} {driver}\n");
        }
        image.add("/etc/vmlab.plan", 0o644, plan)?;
        for GuestFile { path, mode, source } in &self.files {
            match source {
                Source::Bytes(bytes) => image.add(path, *mode, bytes.clone())?,
                Source::Host(from) => image.copy(path, *mode, from)?,
            }
        }
        Ok(image)
    }

    /// Refuses what QEMU or the kernel would stumble over later.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |option, value: String, reason| Err(Error::InvalidOption { option, value, reason });
        let plain_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        if !plain_name(&self.name) {
            return refuse(
                "a guest's name",
                self.name.clone(),
                "must consist of letters, digits, -, _ and .",
            );
        }
        if self.cpus == 0 {
            return refuse("a guest's CPUs", "0".into(), "there must be one");
        }
        for shared in &self.shared {
            match shared {
                Shared::Plain { bytes, .. } if !bytes.is_power_of_two() => {
                    return refuse("the size of shared memory", bytes.to_string(), "must be a power of two");
                }
                Shared::Doorbell { vectors: 0, .. } => {
                    return refuse("doorbell vectors", "0".into(), "there must be one");
                }
                Shared::Plain { .. } | Shared::Doorbell { .. } => {}
            }
        }
        Ok(())
    }
}
