//! Packages that are installed on this machine.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::external;

/// A package, and what shows that it, or another with the same, is there.
struct Need {
    package: &'static str,
    proof: Proof,
}

enum Proof {
    Program(&'static str),
    File(&'static str),
}

use Proof::{File, Program};

const NEEDS: [Need; 9] = [
    Need { package: "qemu-system-x86", proof: Program("qemu-system-x86_64") },
    Need { package: "qemu-system-arm", proof: Program("qemu-system-aarch64") },
    Need { package: "qemu-user-static", proof: Program("qemu-aarch64-static") },
    Need { package: "gcc", proof: Program("gcc") },
    Need { package: "gcc-aarch64-linux-gnu", proof: Program("aarch64-linux-gnu-gcc") },
    Need { package: "libc6-dev-arm64-cross", proof: File("/usr/aarch64-linux-gnu/lib/libc.a") },
    Need { package: "kmod", proof: Program("depmod") },
    Need { package: "xz-utils", proof: Program("xz") },
    Need { package: "zstd", proof: Program("zstd") },
];

impl Need {
    fn is_met(&self) -> bool {
        match self.proof {
            Program(name) => external::find(name).is_some(),
            File(path) => Path::new(path).exists(),
        }
    }
}

fn missing() -> Vec<&'static str> {
    NEEDS.iter().filter(|need| !need.is_met()).map(|need| need.package).collect()
}

/// Installs what is missing, if anything is.
pub(super) fn install() -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        tracing::info!("packages: all installed");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Packages { packages });
    }
    tracing::info!("packages: installing {}", packages.join(", "));
    external::run(apt_get().arg("update"))?;
    external::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&packages))?;
    match missing() {
        still if still.is_empty() => Ok(()),
        packages => Err(Error::Packages { packages }),
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
