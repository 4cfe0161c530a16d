//! Makes a Debian machine ready for the lab, once; with all there, it does nothing and asks nobody.

mod apt;
mod packages;

use std::path::Path;
use std::process::Command;

use self::apt::Archives;
use crate::arch::Arch;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::external;
use crate::kernel::Kernel;
use crate::toolchain;

/// Installs the packages that are missing, and fills the cache: a kernel of each architecture and, unless the
/// installed compiler builds for aarch64, one that does.
///
/// # Errors
/// Packages are missing and this user may not install them; the archive cannot be reached or lacks something;
/// the cache cannot be written.
pub fn run(cache: &Cache) -> Result<()> {
    packages::install()?;
    let mut archives = Archives::new()?;
    for arch in Arch::ALL {
        if Kernel::cached(cache, arch).is_err() {
            Cache::fill(&cache.kernel(arch), |root| kernel(&mut archives, arch, root))?;
        }
        tracing::info!("kernel for {arch}: {}", Kernel::cached(cache, arch)?.version());
        if !toolchain::is_installed(arch) && toolchain::cached(cache, arch).is_err() {
            Cache::fill(&cache.rust(arch), |root| rust(&mut archives, arch, root))?;
        }
        tracing::info!("programs for {arch}: {}", toolchain::describe(cache, arch)?);
    }
    Ok(())
}

/// The kernel that Debian's cloud images of this architecture have; its package has a new name with each
/// version.
fn kernel(archives: &mut Archives, arch: Arch, root: &Path) -> Result<()> {
    let apt = archives.of(arch)?;
    let meta = format!("linux-image-cloud-{}", arch.debian());
    let needs = apt.depends(&meta)?;
    let package = needs.iter().find(|name| name.starts_with("linux-image-"));
    let package = package.ok_or_else(|| Error::NotFound {
        what: "dependency on linux-image-*".into(),
        source_name: format!("apt-cache depends {meta}"),
        text: needs.join(" "),
    })?;
    apt.unpack(std::slice::from_ref(package), root)?;
    // The package leaves the index of its modules to its installation.
    let depmod = external::find("depmod").unwrap_or_else(|| "depmod".into());
    let kernel = Kernel::unpacked(root)?;
    external::run(Command::new(depmod).arg("-b").arg(root).arg(kernel.version()))?;
    Ok(())
}

/// A compiler that runs here, with the standard library of `arch`: Debian's, of the version that follows
/// Firefox.
fn rust(archives: &mut Archives, arch: Arch, root: &Path) -> Result<()> {
    let host = Arch::HOST.ok_or_else(|| Error::NotFound {
        what: "compiler".into(),
        source_name: "Debian's archive".into(),
        text: format!("nothing for {}", std::env::consts::ARCH),
    })?;
    // Its libraries come along, but those that all programs here have anyway; linker and C library are the
    // machine's own.
    let own = |name: &str| {
        let library =
            name.starts_with("lib") && !name.ends_with("-dev") && !["libc6", "libgcc-s1"].contains(&name);
        library || name.starts_with("libstd-rust-web")
    };
    let native = archives.of(host)?.closure("rustc-web", own)?;
    archives.of(host)?.unpack(&native, root)?;
    archives.of(arch)?.unpack(&["libstd-rust-web-dev".into()], root)
}
