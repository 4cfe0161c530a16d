//! QEMU's command line for a guest.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::config::{Config, Shared, remaps_interrupts};
use crate::accel::Accel;
use crate::arch::{Arch, Cpu};
use crate::wire::PORT;

/// What a guest has besides its [`Config`].
pub(super) struct Parts<'a> {
    pub(super) accel: Accel,
    pub(super) kernel: &'a Path,
    pub(super) image: &'a Path,
    pub(super) console: &'a Path,
    /// Descriptors that QEMU inherits, each one end of a stream socket.
    pub(super) monitor: RawFd,
    pub(super) port: RawFd,
}

/// All arguments.
pub(super) fn arguments(config: &Config, parts: &Parts<'_>) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.option("-name", config.name.clone());
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        line.flag(flag);
    }
    line.option("-display", "none");
    line.option("-accel", parts.accel.option());
    line.option("-machine", machine(config, parts.accel));
    if let Some(model) = model(config, parts.accel) {
        line.option("-cpu", model);
    }
    line.option("-smp", if config.cpus == 1 { "1,maxcpus=2".into() } else { config.cpus.to_string() });
    line.option("-m", format!("{}M", config.memory_mib));
    line.option("-kernel", parts.kernel);
    line.option("-initrd", parts.image);
    line.option("-append", append(config));
    line.option("-chardev", with_path("file,id=console,path=", parts.console));
    line.option("-serial", "chardev:console");
    line.option("-chardev", format!("socket,id=monitor,fd={}", parts.monitor));
    line.option("-mon", "chardev=monitor,mode=control");
    line.option("-chardev", format!("socket,id=port,fd={}", parts.port));
    line.option("-device", "virtio-serial-pci");
    line.option("-device", format!("virtserialport,chardev=port,name={PORT}"));
    if config.iommu && config.cpu.arch() == Arch::X86_64 {
        // It must come before the devices that it translates for.
        let remap = if remaps_interrupts(parts.accel) { "on" } else { "off" };
        line.option("-device", format!("intel-iommu,intremap={remap},caching-mode=on"));
    }
    for (number, shared) in config.shared.iter().enumerate() {
        line.share(number, shared);
    }
    line.0.extend(config.qemu_arguments.iter().cloned());
    line.0
}

fn machine(config: &Config, accel: Accel) -> &'static str {
    match (config.cpu.arch(), config.iommu, accel) {
        (Arch::X86_64, false, _) => "q35",
        // Only the user-space interrupt controller can remap.
        (Arch::X86_64, true, _) => "q35,kernel-irqchip=split",
        (Arch::Aarch64, false, Accel::Tcg) => "virt,gic-version=3",
        (Arch::Aarch64, true, Accel::Tcg) => "virt,gic-version=3,iommu=smmuv3",
        (Arch::Aarch64, false, Accel::Kvm) => "virt,gic-version=host",
        (Arch::Aarch64, true, Accel::Kvm) => "virt,gic-version=host,iommu=smmuv3",
    }
}

fn model(config: &Config, accel: Accel) -> Option<&str> {
    match (&config.cpu_model, accel, config.cpu) {
        (Some(model), ..) => Some(model),
        (None, Accel::Kvm, _) => Some("host"),
        (None, Accel::Tcg, cpu) => emulated_model(cpu),
    }
}

/// For `-cpu`, where it is emulated; `None` for the machine's own.
pub(super) fn emulated_model(cpu: Cpu) -> Option<&'static str> {
    match cpu {
        Cpu::X86_64 => None,
        Cpu::CortexA57 => Some("cortex-a57"),
        // The architected algorithm of pointer authentication is slow to emulate.
        Cpu::Aarch64Max => Some("max,pauth-impdef=on"),
    }
}

fn append(config: &Config) -> String {
    let mut words = vec!["panic=-1"];
    match config.cpu.arch() {
        // On a busy machine the emulated timer fails the test that this skips, and the kernel gives up.
        Arch::X86_64 => words.extend(["console=ttyS0", "no_timer_check"]),
        Arch::Aarch64 => words.push("console=ttyAMA0"),
    }
    if config.iommu && config.cpu.arch() == Arch::X86_64 {
        words.push("intel_iommu=on");
    }
    words.extend(config.kernel_arguments.iter().map(String::as_str));
    words.join(" ")
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.0.push(value.into());
    }

    fn share(&mut self, number: usize, shared: &Shared) {
        match shared {
            Shared::Plain { path, bytes } => {
                let object = format!("memory-backend-file,id=shared{number},share=on,size={bytes},mem-path=");
                self.option("-object", with_path(&object, path));
                self.option("-device", format!("ivshmem-plain,memdev=shared{number}"));
            }
            Shared::Doorbell { socket, vectors } => {
                let chardev = format!("socket,id=shared{number},path=");
                self.option("-chardev", with_path(&chardev, socket));
                self.option("-device", format!("ivshmem-doorbell,vectors={vectors},chardev=shared{number}"));
            }
        }
    }
}

/// An option that ends with a path, in which QEMU wants commas twice.
fn with_path(option: &str, path: &Path) -> OsString {
    let mut bytes = option.as_bytes().to_vec();
    for &byte in OsStr::as_bytes(path.as_ref()) {
        bytes.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(config: &Config, accel: Accel) -> String {
        let parts = Parts {
            accel,
            kernel: Path::new("/k"),
            image: Path::new("/i"),
            console: Path::new("/c"),
            monitor: 5,
            port: 6,
        };
        let words = arguments(config, &parts);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_cpu_leaves_room_for_another() {
        let config = Config::new(Cpu::X86_64).cpus(1);
        assert!(line(&config, Accel::Tcg).contains("-smp 1,maxcpus=2 "));
        assert!(line(&config.cpus(4), Accel::Tcg).contains("-smp 4 "));
    }

    #[test]
    fn shared_memory_stands_after_the_iommu() {
        let config = Config::new(Cpu::X86_64).ivshmem_plain("/a,b", 1 << 20).ivshmem_doorbell("/s", 3).vfio();
        let line = line(&config, Accel::Tcg);
        let iommu = line.find("intel-iommu").unwrap();
        assert!(iommu < line.find("memdev=shared0").unwrap());
        assert!(line.contains("size=1048576,mem-path=/a,,b "));
        assert!(line.contains("path=/s -device ivshmem-doorbell,vectors=3,chardev=shared1"));
        assert!(line.contains("intel_iommu=on") && line.contains("intremap=on"));
    }

    #[test]
    fn processors_are_chosen_by_what_executes_them() {
        assert!(!line(&Config::new(Cpu::X86_64), Accel::Tcg).contains("-cpu"));
        assert!(line(&Config::new(Cpu::X86_64), Accel::Kvm).contains("-cpu host"));
        assert!(line(&Config::new(Cpu::CortexA57), Accel::Tcg).contains("-cpu cortex-a57"));
        assert!(
            line(&Config::new(Cpu::X86_64).cpu_model("EPYC,+svm"), Accel::Tcg).contains("-cpu EPYC,+svm")
        );
    }
}
