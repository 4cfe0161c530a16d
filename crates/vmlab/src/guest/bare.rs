//! Guests without an operating system: a kernel of one's own, run to its end.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command_line;
use super::logs::Logs;
use super::process::Process;
use crate::accel::Accel;
use crate::arch::{Arch, Cpu};
use crate::error::{Error, Result};

/// The port at which such a kernel for x86-64 ends: QEMU's `isa-debug-exit`.
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

/// One for aarch64 ends by a call to QEMU itself.
const SEMIHOSTING: &str = "enable=on,target=native";

/// A machine that runs one kernel, with a serial port and a way to end: on x86-64 a PVH kernel and a port to exit by, on aarch64 an ELF file on
/// the machine `virt` with a GICv3, and semihosting.
///
/// ```no_run
/// let kernel = vmlab::toolchain::Artifact::bin("crosslock-baremetal", "baremetal").feature("kernel").bare_metal();
/// let kernel = kernel.build(&vmlab::Cache::new()?, vmlab::Arch::X86_64)?;
/// let ended = vmlab::BareMetal::new(kernel).cpus(4).append("task=nesting cpus=4").run()?;
/// assert!(ended.serial.contains("boot"));
/// # Ok::<(), vmlab::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BareMetal {
    name: String,
    kernel: PathBuf,
    cpu: Cpu,
    cpus: u32,
    memory_mib: u32,
    append: String,
    limit: Duration,
}

/// What a kernel has left when its machine has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// QEMU's exit status: on x86-64 twice what the kernel wrote to the exit port, plus 1; on aarch64 what it gave as its status.
    /// `None` if a signal ended it.
    pub status: Option<i32>,
    /// All that came over the serial port; what is not UTF-8 is replaced.
    pub serial: String,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl BareMetal {
    /// A machine for x86-64 with one virtual CPU and 64 MiB of memory, which must end within a minute.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            name: "bare".into(),
            kernel: kernel.into(),
            cpu: Cpu::X86_64,
            cpus: 1,
            memory_mib: 64,
            append: String::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// A processor of this kind.
    pub fn cpu(mut self, cpu: Cpu) -> Self {
        self.cpu = cpu;
        self
    }

    /// So many virtual CPUs.
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// The kernel's command line.
    pub fn append(mut self, line: impl Into<String>) -> Self {
        self.append = line.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end, by emulation.
    ///
    /// # Errors
    /// QEMU cannot be started; it has not ended in time, and has been killed: then its logs are kept.
    pub fn run(self) -> Result<Ended> {
        let logs = Arc::new(Logs::create(&self.name)?);
        let qemu = self.cpu.arch().qemu();
        let not_run = |error| Error::NotRun { program: qemu.to_owned(), error };
        let said = logs.create_file("qemu.log")?;
        let mut command = Command::new(qemu);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-accel", Accel::Tcg.option()]);
        match self.cpu.arch() {
            Arch::X86_64 => command.args(["-machine", "q35", "-device", EXIT_DEVICE]),
            Arch::Aarch64 => {
                command.args(["-machine", "virt,gic-version=3", "-semihosting-config", SEMIHOSTING])
            }
        };
        if let Some(model) = command_line::emulated_model(self.cpu) {
            command.args(["-cpu", model]);
        }
        command.args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        command.arg("-serial").arg(format!("file:{}", logs.console().display()));
        command.arg("-kernel").arg(&self.kernel).args(["-append", &self.append]);
        command.stdin(std::process::Stdio::null());
        command.stdout(said.try_clone().map_err(not_run)?).stderr(said);
        let start = Instant::now();
        let process = Process::start(command, Vec::new()).map_err(not_run)?;
        let Some(status) = process.wait(self.limit) else {
            let evidence = Box::new(logs.evidence(Some(&process)));
            logs.keep();
            let waited_for = format!("end of the kernel with {:?}", self.append);
            return Err(Error::TimedOut { guest: self.name, waited_for, limit: self.limit, evidence });
        };
        let took = start.elapsed();
        let serial = std::fs::read(logs.console()).map_err(Error::io("read", &logs.console()))?;
        Ok(Ended { status: status.code(), serial: String::from_utf8_lossy(&serial).into_owned(), took })
    }
}
