//! What can go wrong in the lab, said so that a person knows what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::qmp::QmpError;
use crate::wire::Exit;

/// The lab's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something in the lab could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment has no place for a cache.
    #[error("no place for the cache: set CROSSLOCK_LAB_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// Something is missing that the setup provides.
    #[error("there is no {what} at {}; run `cargo run -p vmlab -- setup`", path.display())]
    Missing {
        /// What.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// Programs are taken from a directory, and this one is not there.
    #[error("there is no {}, and where {} is set nothing is built", path.display(), crate::toolchain::PREBUILT)]
    NotPrebuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// Packages are missing and this user may not install them.
    #[error("missing: {}; as root: apt-get update && apt-get install {}", packages.join(", "), packages.join(" "))]
    Packages {
        /// Their names.
        packages: Vec<&'static str>,
    },
    /// Nothing fits in what the package archive, or a compiler, said.
    #[error("no {what} in what {source_name} says: {text}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Who was asked.
        source_name: String,
        /// The end of what it said.
        text: String,
    },
    /// A kernel has no such module.
    #[error("kernel {kernel} has no module {module}")]
    NoModule {
        /// The version.
        kernel: String,
        /// The name.
        module: String,
    },
    /// A file or directory could not be dealt with.
    #[error("cannot {doing} {}: {error}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// An option of a guest cannot be.
    #[error("{option} = {value}: {reason}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        reason: &'static str,
    },
    /// A program of this machine could not be started.
    #[error("cannot start {program}: {error}; `cargo run -p vmlab -- setup` installs what the lab needs")]
    NotRun {
        /// Which.
        program: String,
        /// The system's reason.
        error: io::Error,
    },
    /// A program of this machine failed.
    #[error("{command} ended with {status}: {text}")]
    Failed {
        /// The whole command.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it said.
        text: String,
    },
    /// A guest is no more.
    #[error("guest {guest} is gone, while waiting for {waited_for}: {evidence}")]
    Gone {
        /// Which.
        guest: String,
        /// What was waited for.
        waited_for: String,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// Something did not come in time.
    #[error("guest {guest}: no {waited_for} within {limit:?}: {evidence}")]
    TimedOut {
        /// Which.
        guest: String,
        /// What was waited for.
        waited_for: String,
        /// For how long.
        limit: Duration,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// A guest could not start a program.
    #[error("guest {guest} cannot run {program}: {reason}")]
    NotStarted {
        /// Which.
        guest: String,
        /// The program and its arguments.
        program: String,
        /// The guest's reason.
        reason: String,
    },
    /// A program in a guest did not end well.
    #[error(
        "{program} in guest {guest} ended with {exit}; its error output: {stderr:?}, its output: {stdout:?}"
    )]
    Unsuccessful {
        /// Which guest.
        guest: String,
        /// The program and its arguments.
        program: String,
        /// How it ended.
        exit: Exit,
        /// The end of its standard output.
        stdout: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// QEMU's monitor said no, or nothing sensible.
    #[error("guest {guest}: {command}: {error}; {evidence}")]
    Qmp {
        /// Which.
        guest: String,
        /// What it was asked.
        command: String,
        /// What came back.
        error: QmpError,
        /// What is known.
        evidence: Box<Evidence>,
    },
}

impl Error {
    /// For `map_err`: something about `path` failed.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::File { doing, path: path.to_owned(), error }
    }
}

/// What a guest, living or dead, has left to read.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// How its QEMU ended, if it has.
    pub end: Option<String>,
    /// The end of what QEMU said.
    pub qemu: String,
    /// Where its kernel panicked: the line that says why.
    pub panic: Option<String>,
    /// The last lines of its console.
    pub console: Vec<String>,
    /// Where all its logs are, if they are kept whatever happens.
    pub logs: Option<PathBuf>,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some(end) => write!(f, "its QEMU has ended: {end}")?,
            None => f.write_str("its QEMU runs")?,
        }
        if let Some(logs) = &self.logs {
            write!(f, "; logs are in {}", logs.display())?;
        }
        if !self.qemu.is_empty() {
            write!(f, "\n  QEMU said: {}", self.qemu)?;
        }
        if let Some(panic) = &self.panic {
            write!(f, "\n  its kernel panicked: {panic}")?;
        }
        if self.console.is_empty() {
            f.write_str("\n  nothing on its console")?;
        }
        for line in &self.console {
            write!(f, "\n  console| {line}")?;
        }
        Ok(())
    }
}
