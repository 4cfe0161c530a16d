//! What executes a guest's instructions.

use std::fmt;
use std::fs::File;
use std::sync::OnceLock;
use std::time::Duration;

use crate::arch::{Arch, Cpu};
use crate::error::{Error, Result};
use crate::guest::{Config, Guest};

/// The hypervisor or emulator behind a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The kernel's own hypervisor.
    Kvm,
    /// QEMU's emulator, with a thread for each virtual CPU.
    Tcg,
}

/// How long a kernel may take to boot under KVM before it counts as not booting.
const PATIENCE: Duration = Duration::from_secs(15);

impl Accel {
    /// The best for guests of `arch` on this machine: KVM, where a guest really boots with it, which is tried
    /// once in each process. `CROSSLOCK_LAB_ACCEL` (`kvm` or `tcg`) decides instead.
    ///
    /// # Errors
    /// That variable has another value.
    pub fn best(arch: Arch) -> Result<Self> {
        match std::env::var("CROSSLOCK_LAB_ACCEL").ok().as_deref() {
            None | Some("") => {}
            Some("kvm") => return Ok(Self::Kvm),
            Some("tcg") => return Ok(Self::Tcg),
            Some(other) => {
                return Err(Error::InvalidOption {
                    option: "CROSSLOCK_LAB_ACCEL",
                    value: other.to_owned(),
                    reason: "must be kvm or tcg",
                });
            }
        }
        static KVM: OnceLock<bool> = OnceLock::new();
        let native = Arch::HOST == Some(arch);
        Ok(if native && *KVM.get_or_init(|| kvm_boots(arch)) { Self::Kvm } else { Self::Tcg })
    }

    /// For QEMU's `-accel`.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A device that opens is no proof: a kernel must boot.
fn kvm_boots(arch: Arch) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let cpu = match arch {
        Arch::X86_64 => Cpu::X86_64,
        Arch::Aarch64 => Cpu::Aarch64Max,
    };
    let config = Config::new(cpu).name("kvm-probe").accel(Accel::Kvm).boot_limit(PATIENCE);
    match Guest::boot_and_forget(config) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!("KVM boots no guest here: {error}");
            false
        }
    }
}
