//! A guest that has KVM itself, on any machine; and in it, if wanted, a lab.
//!
//! ```text
//!  this machine
//!  +-- QEMU, emulation (TCG): an AMD processor with SVM -------------------+
//!  |  L1: Linux, kvm_amd                                                     |
//!  |      a lab: its program, QEMU, a kernel, programs for guests            |
//!  |  +-- QEMU, KVM ----------------+   +-- QEMU, KVM ----------------+      |
//!  |  |  L2: a guest of that lab    |   |  L2: another                |      |
//!  |  +-----------------------------+   +-----------------------------+      |
//!  +-------------------------------------------------------------------------+
//! ```
//!
//! KVM and what guests see of it are real; the processor under it is an emulator's. So what happens is KVM's doing, but how long
//! it takes is not, and neither are caches and memory types, which the emulator does not have.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accel::Accel;
use crate::arch::{Arch, Cpu};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::external;
use crate::guest::{ALWAYS, Config, Guest, Invocation, VFIO};
use crate::kernel::Kernel;
use crate::toolchain::{Artifact, PREBUILT};

/// A processor with SVM, which QEMU emulates. Without nested paging: with it, a virtual CPU was seen now and then to die of a triple fault,
/// or not to come out of HLT when it was called.
const MODEL: &str = "EPYC,+svm,-npt";
const CPUS: u32 = 2;

/// It hangs now and then, or ends.
const ATTEMPTS: u32 = 4;

/// Where the inner lab has what it needs.
const CACHE: &str = "/lab/cache";
const PROGRAMS: &str = "/lab/programs";

const PATH: &str = "/bin:/usr/bin:/usr/local/bin";

/// What QEMU loads for a guest that is started with `-kernel`: the BIOS, what gives the kernel to it, and what it
/// puts into every x86 machine with KVM.
const FIRMWARE: [&str; 3] = ["bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin"];

/// Programs that each guest of a lab has.
const OWN: [&str; 2] = ["vmlab-init", "vmlab-drill"];

/// Boots an emulated x86-64 machine of two processors in which there is `/dev/kvm`; `complete` adds what else it shall have.
///
/// # Errors
/// As [`Guest::boot`], after several attempts.
pub fn boot(complete: impl FnOnce(Config) -> Config) -> Result<Guest> {
    let config = Config::new(Cpu::X86_64).name("l1").accel(Accel::Tcg).cpu_model(MODEL).cpus(CPUS);
    let config = complete(config.modules(["kvm_amd"]));
    Guest::boot_within(&config, ATTEMPTS, |error| {
        matches!(error, Error::TimedOut { .. } | Error::Gone { .. })
    })
}

/// A machine with KVM in which programs of the lab can boot x86-64 guests, which run under that KVM.
#[derive(Debug)]
pub struct Lab(Guest);

impl Lab {
    /// Boots it with so much memory, and with these programs for its guests and for itself. Guests can have the modules that
    /// [`Config`] itself asks for.
    ///
    /// # Errors
    /// As [`boot`]; QEMU or something that it needs is not found; a program does not compile.
    pub fn boot(memory_mib: u32, programs: &[Artifact]) -> Result<Self> {
        let files = files(programs)?;
        let with_files = |config: Config| {
            files.iter().fold(config.memory_mib(memory_mib), |config, (path, from)| {
                config.program(path.display().to_string(), from)
            })
        };
        boot(with_files).map(Self)
    }

    /// The machine.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.0
    }

    /// A program of the lab, to be started there.
    pub fn program(&self, program: &Artifact, arguments: impl IntoIterator<Item = String>) -> Invocation<'_> {
        let path = placed(program).display().to_string();
        let invocation = self.0.program([path].into_iter().chain(arguments));
        let settings = [
            ("CROSSLOCK_LAB_ACCEL", "kvm"),
            ("CROSSLOCK_LAB_CACHE", CACHE),
            (PREBUILT, PROGRAMS),
            ("PATH", PATH),
        ];
        settings.into_iter().fold(invocation, |invocation, (name, value)| invocation.env(name, value))
    }
}

fn placed(program: &Artifact) -> PathBuf {
    Path::new(PROGRAMS).join(program.place(Arch::X86_64))
}

/// What the inner lab needs: where it is to be there, and where it is here.
fn files(programs: &[Artifact]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let cache = Cache::new()?;
    let own = OWN.map(|name| Artifact::bin("vmlab", name).no_default_features().stripped());
    let mut files = Vec::new();
    for program in own.iter().chain(programs) {
        files.push((placed(program), program.build(&cache, Arch::X86_64)?));
    }
    let kernel = Kernel::cached(&cache, Arch::X86_64)?;
    let modules = kernel.modules(&[ALWAYS, VFIO].concat())?;
    let (here, there) = (cache.kernel(Arch::X86_64), Cache::at(CACHE).kernel(Arch::X86_64));
    for file in kernel.files(&modules) {
        let name = file.strip_prefix(&here).unwrap_or(&file);
        files.push((there.join(name), file));
    }
    let unpacker = modules.iter().find_map(|module| module.unpacker());
    for program in [Arch::X86_64.qemu()].into_iter().chain(unpacker) {
        let missing =
            || Error::NotRun { program: program.to_owned(), error: std::io::ErrorKind::NotFound.into() };
        let path = external::find(program).ok_or_else(missing)?;
        // Whatever belongs together finds each other if all is where it is here.
        files.extend([path.clone()].into_iter().chain(libraries(&path)?).map(|file| (file.clone(), file)));
    }
    files.extend(firmware()?.into_iter().map(|file| (file.clone(), file)));
    Ok(files)
}

/// The loader and the libraries of a program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = external::text(Command::new("ldd").arg(program))?;
    let libraries = parse_libraries(&text);
    if libraries.is_empty() || text.contains("not found") {
        return Err(Error::NotFound {
            what: format!("complete list of the libraries of {}", program.display()),
            source_name: "ldd".into(),
            text: external::tail(text.as_bytes()),
        });
    }
    Ok(libraries)
}

/// The files in what `ldd` says: `NAME => /PATH (ADDRESS)`, and `/PATH (ADDRESS)` of the loader.
fn parse_libraries(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// QEMU's own files, each where QEMU looks for it.
fn firmware() -> Result<Vec<PathBuf>> {
    let text = external::text(Command::new(Arch::X86_64.qemu()).args(["-L", "help"]))?;
    let find = |name: &&str| {
        let directory = text.lines().map(Path::new).find(|directory| directory.join(name).is_file());
        let missing = || Error::NotFound {
            what: format!("directory with {name}"),
            source_name: format!("{} -L help", Arch::X86_64.qemu()),
            text: text.clone(),
        };
        let directory = directory.ok_or_else(missing)?;
        // What QEMU says goes up and down again, as in /usr/bin/../share/qemu.
        Ok(directory.canonicalize().map_err(Error::io("find", directory))?.join(name))
    };
    FIRMWARE.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n\tstatically linked\n";
        let found = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_libraries(text), found.map(PathBuf::from));
    }
}
