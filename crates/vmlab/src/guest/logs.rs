//! What a guest leaves to read.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use crate::error::{Error, Evidence, Result};
use crate::external;

/// How many lines of the console an error shows.
const LINES: usize = 20;

/// How much of the end of a log is looked at, in bytes.
const TAIL: u64 = 64 << 10;

/// How a kernel's last words begin.
const PANIC: &str = "Kernel panic";

/// A guest's directory. It vanishes with this, unless it is [kept](Self::keep).
#[derive(Debug)]
pub(super) struct Logs {
    path: PathBuf,
    directory: Mutex<Option<TempDir>>,
}

impl Logs {
    pub(super) fn create(guest: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("vmlab-{guest}-")).tempdir();
        let directory = directory.map_err(Error::io("create a directory in", &std::env::temp_dir()))?;
        Ok(Self { path: directory.path().to_owned(), directory: Mutex::new(Some(directory)) })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    pub(super) fn console(&self) -> PathBuf {
        self.path("console.log")
    }

    pub(super) fn create_file(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        File::create(&path).map_err(Error::io("create", &path))
    }

    /// Leaves the directory there for a person; the image is large and of no interest.
    pub(super) fn keep(&self) -> &Path {
        if let Some(directory) = self.directory.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = fs::remove_file(self.path("image"));
            let _ = directory.keep();
        }
        &self.path
    }

    /// What there is to say of the guest now.
    pub(super) fn evidence(&self, process: Option<&Process>) -> Evidence {
        // One whose connection has just ended is about to be gone.
        let end = process.and_then(|process| process.wait(Duration::from_millis(200)));
        let mut console = lines(&end_of(&self.console()));
        let panic = console.iter().rev().find(|line| line.contains(PANIC)).cloned();
        console.drain(..console.len().saturating_sub(LINES));
        let kept = self.directory.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        Evidence {
            end: end.map(|status| status.to_string()),
            qemu: external::tail(&end_of(&self.path("qemu.log"))),
            panic,
            console,
            logs: kept.then(|| self.path.clone()),
        }
    }
}

/// The end of a file; nothing if there is none.
fn end_of(path: &Path) -> Vec<u8> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().unwrap_or_default()
}

/// The lines of a console that say something, without what would move a terminal's cursor.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    text.lines().map(clean).filter(|line| !line.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_vanish_unless_kept() {
        let logs = Logs::create("a").unwrap();
        fs::write(logs.console(), "\u{1b}[2Jone\r\n\r\ntwo\n").unwrap();
        assert_eq!(logs.evidence(None).console, ["[2Jone", "two"]);
        let path = logs.path.clone();
        drop(logs);
        assert!(!path.exists());

        let logs = Logs::create("b").unwrap();
        fs::write(logs.path("image"), "large").unwrap();
        let path = logs.keep().to_owned();
        assert_eq!(logs.evidence(None).logs.as_ref(), Some(&path));
        drop(logs);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::remove_dir(path).unwrap();
    }

    #[test]
    fn of_a_long_console_the_end_is_shown_and_the_reason_of_a_panic() {
        let logs = Logs::create("c").unwrap();
        let trace: String = (0..100).map(|n| format!("trace {n}\n")).collect();
        fs::write(logs.console(), format!("[ 1.0] Kernel panic - not syncing: why\n{trace}")).unwrap();
        let evidence = logs.evidence(None);
        assert_eq!((evidence.console.len(), evidence.console[LINES - 1].as_str()), (LINES, "trace 99"));
        assert_eq!(evidence.panic.as_deref(), Some("[ 1.0] Kernel panic - not syncing: why"));
        assert!(evidence.to_string().contains("not syncing: why"));
    }
}
