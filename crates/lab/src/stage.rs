//! Where scenarios take place: a segment, guests that see it, and this host.

use std::path::PathBuf;
use std::process::Command;

use crosslock::{Options, Segment};
use tempfile::TempDir;
use vmlab::toolchain::Artifact;
use vmlab::{Arch, Cache, Config, Cpu, Guest};

use crate::actor::Actor;

/// Where the program is in guests.
const PROGRAM: &str = "/bin/lab-guest";

/// How large the shared memory is, in bytes.
const SIZE: u64 = 1 << 21;

/// How many kernels can take part, and how many threads of each.
const DOMAINS: u32 = 4;
const THREADS: u32 = 16;

/// A segment, in a file that guests see as the memory of a device.
#[derive(Debug)]
pub struct Stage {
    directory: TempDir,
    segment: Segment,
}

/// Who takes part.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A process of this host.
    Host,
    /// One in a guest, which is that domain.
    Guest(&'a Guest, u32),
}

impl Stage {
    /// A segment that guests share without interrupts.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn plain() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let options =
            Options::new().directory(directory.path()).domains(DOMAINS).participants(DOMAINS * THREADS);
        let segment = options.size(SIZE).create("segment")?;
        Ok(Self { directory, segment })
    }

    /// The segment, as this process sees it.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("segment")
    }

    /// A guest that shares it.
    ///
    /// # Errors
    /// The program for it cannot be built.
    pub fn guest(&self, cpu: Cpu, name: &str) -> anyhow::Result<Config> {
        let program = program(cpu.arch())?;
        Ok(Config::new(cpu).name(name).ivshmem_plain(self.file(), SIZE).program(PROGRAM, program))
    }

    /// Starts the lab's program there, which is to do that.
    ///
    /// # Errors
    /// It cannot be built or started.
    pub fn start(&self, place: Place<'_>, deed: &[&str]) -> anyhow::Result<Actor> {
        match place {
            Place::Host => {
                let mut command = Command::new(program(Arch::HOST.unwrap_or(Arch::X86_64))?);
                command.arg("--file").arg(self.file()).args(deed);
                Actor::on_host(format!("{} on the host", deed.join(" ")), command)
            }
            Place::Guest(guest, domain) => {
                let argv = [PROGRAM, "--plain", &domain.to_string()].map(str::to_owned).into_iter();
                let program = guest.exec(argv.chain(deed.iter().map(|&word| word.to_owned())))?;
                Ok(Actor::in_guest(format!("{} in {}", deed.join(" "), guest.name()), program))
            }
        }
    }
}

fn program(arch: Arch) -> anyhow::Result<PathBuf> {
    let program = Artifact::bin("crosslock-lab", "lab-guest").no_default_features().stripped();
    Ok(program.build(&Cache::new()?, arch)?)
}
