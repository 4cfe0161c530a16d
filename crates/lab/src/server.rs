//! `crosslock serve`, as a process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use crosslock::Segment;
use crosslock_core::primitive::{AtomicU32, Ordering};

use crate::stage::VECTORS;

/// A server and its segment; both are gone with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    socket: PathBuf,
    name: String,
}

impl Server {
    /// Starts `crosslock`, which listens in `directory`, for a new segment.
    pub(crate) fn start(
        crosslock: PathBuf,
        directory: &Path,
        size: u64,
        domains: u32,
        threads: u32,
    ) -> anyhow::Result<(Self, Segment)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("crosslock-lab-{}-{number}", std::process::id());
        let socket = directory.join("socket");
        let child = Command::new(crosslock)
            .args([
                "serve",
                "--segment",
                &name,
                "--size",
                &size.to_string(),
                "--domains",
                &domains.to_string(),
            ])
            .args(["--threads", &threads.to_string(), "--vectors", &VECTORS.to_string(), "--socket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut server = Self { child, socket, name };
        let mut line = String::new();
        BufReader::new(server.child.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line.starts_with("serving "), "the server said {line:?}");
        let segment = Segment::open(&server.name)?;
        Ok((server, segment))
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn file(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.name)
    }

    /// SIGKILL; waits for its end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and then have removed the segment.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Segment::remove(&self.name);
    }
}
