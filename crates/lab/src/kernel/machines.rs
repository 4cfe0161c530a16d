//! Where the kernel runs.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmlab::toolchain::Artifact;
use vmlab::{Arch, BareMetal, Cache, Cpu, Error, Exit, Guest, nested};

use super::hosted;
use super::outcome::Outcome;
use super::plan::Step;

/// What runs the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// No machine: threads of a process, as `crosslock_kernel`'s hosted platform has them.
    Hosted,
    /// QEMU's emulation: virtual CPUs are threads of this machine.
    Tcg {
        /// What is emulated.
        #[serde(serialize_with = "serialize_name")]
        cpu: Cpu,
    },
    /// KVM in an emulated machine of two CPUs; the virtual CPUs have `on` of them to run on.
    Kvm {
        /// One or two.
        on: u8,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hosted => f.write_str("hosted"),
            Self::Tcg { cpu } => write!(f, "tcg {cpu}"),
            Self::Kvm { on } => write!(f, "kvm on {on}"),
        }
    }
}

fn serialize_name<S: serde::Serializer>(cpu: &Cpu, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cpu.name())
}

const L1_MEMORY_MIB: u32 = 1024;

const VMM: &str = "/bin/crosslock-vmm";
const KERNEL: &str = "/boot/kernel";
const CHECKED_KERNEL: &str = "/boot/kernel-checked";

/// The kernels, each built when it is first needed, and the machine with KVM, booted then.
#[derive(Debug)]
pub struct Machines {
    cache: Cache,
    l1: Mutex<Option<Guest>>,
}

impl Machines {
    /// Finds what they are made of.
    ///
    /// # Errors
    /// There is no cache.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { cache: Cache::new()?, l1: Mutex::new(None) })
    }

    /// The kernel for `cpu`, with the locks' own checks or without. That for a processor with LSE uses it.
    fn kernel(&self, cpu: Cpu, checked: bool) -> Result<PathBuf, Error> {
        let kernel = Artifact::bin("crosslock-baremetal", "baremetal").bare_metal();
        let kernel = kernel.feature(if checked { "debug-checks" } else { "kernel" });
        match cpu {
            Cpu::X86_64 | Cpu::CortexA57 => kernel,
            Cpu::Aarch64Max => kernel.instructions("lse"),
        }
        .build(&self.cache, cpu.arch())
    }

    /// Runs the kernel as `step` says.
    ///
    /// # Errors
    /// What runs does not compile; the machine cannot be had, or the kernel does not end in time.
    pub fn run(&self, step: &Step) -> Result<Outcome, Error> {
        match step.place {
            Place::Hosted => hosted::run(step),
            Place::Tcg { cpu } => {
                let machine =
                    BareMetal::new(self.kernel(cpu, step.checked)?).cpu(cpu).cpus(step.options.cpus);
                let ended = machine.append(step.options.to_string()).limit(step.limit).run()?;
                Ok(Outcome::new(step, ended.status, ended.serial, ended.took))
            }
            // The monitor ends in its own time, whatever the kernel does. If nothing comes, the emulated machine around it hangs.
            Place::Kvm { on } => match self.run_nested(step, on) {
                Err(error @ (Error::TimedOut { .. } | Error::Gone { .. })) => {
                    eprintln!("{}: once more, on another machine with KVM: {error}", step.name);
                    self.run_nested(step, on)
                }
                done => done,
            },
        }
    }

    fn run_nested(&self, step: &Step, on: u8) -> Result<Outcome, Error> {
        let mut l1 = self.l1.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = match &mut *l1 {
            Some(guest) => guest,
            none => none.insert(self.boot_l1()?),
        };
        let mut argv: Vec<String> = [VMM, "--cpus", &step.options.cpus.to_string()].map(Into::into).into();
        argv.extend(["--on".into(), on.to_string(), "--limit".into(), step.limit.as_secs().to_string()]);
        argv.extend(step.hide_unhalt.then(|| "--hide-unhalt".into()));
        argv.extend(step.realtime.then(|| "--realtime".into()));
        argv.push(if step.checked { CHECKED_KERNEL } else { KERNEL }.into());
        argv.extend(step.options.to_string().split(' ').map(Into::into));
        let start = Instant::now();
        // The monitor has a limit of its own, and says so.
        let ran = guest.program(argv).limit(step.limit + Duration::from_secs(20)).run();
        let took = start.elapsed();
        if ran.is_err() {
            // Whatever it was, the next step has a machine of its own.
            *l1 = None;
        }
        let output = ran?;
        let status = match output.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said += &String::from_utf8_lossy(&output.stderr);
        Ok(Outcome::new(step, status, said, took))
    }

    fn boot_l1(&self) -> Result<Guest, Error> {
        let vmm =
            Artifact::bin("crosslock-vmm", "crosslock-vmm").stripped().build(&self.cache, Arch::X86_64)?;
        let [kernel, checked] = [self.kernel(Cpu::X86_64, false)?, self.kernel(Cpu::X86_64, true)?];
        nested::boot(|config| {
            let config = config.memory_mib(L1_MEMORY_MIB).program(VMM, &vmm);
            config.program(KERNEL, &kernel).program(CHECKED_KERNEL, &checked)
        })
    }
}
