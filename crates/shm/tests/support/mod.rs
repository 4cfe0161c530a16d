//! Other processes for tests: the test binary runs itself, with a role in the environment.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crosslock::Options;
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "CROSSLOCK_TEST_ROLE";
const DIRECTORY: &str = "CROSSLOCK_TEST_DIRECTORY";

/// The role and the options of this process, if it was started by [`Actor::start`].
pub(crate) fn role() -> Option<(String, Options)> {
    let directory = std::env::var_os(DIRECTORY)?;
    Some((std::env::var(ROLE).ok()?, small(Path::new(&directory))))
}

/// Small segments in `directory`.
pub(crate) fn small(directory: &Path) -> Options {
    Options::new().directory(directory).participants(8).objects(8).heap_size(4096)
}

/// Tells the test that started this process something.
pub(crate) fn say(line: impl core::fmt::Display) {
    println!("\nsays {line}");
    std::io::stdout().flush().unwrap();
}

/// Does nothing until it is killed, or the test ends.
pub(crate) fn sleep_until_killed() -> ! {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    std::process::exit(0)
}

/// Another process, killed when it is dropped.
pub(crate) struct Actor {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Actor {
    /// Starts `test` of this binary again, in another process that plays `role`.
    pub(crate) fn start(test: &str, role: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits for the next thing that it [`say`]s.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it ended without a word");
            if let Some(said) = line.strip_prefix("says ") {
                return said.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn kill(&mut self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn join(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `in_child` in the child of a fork; gives whether it was true and did not panic.
pub(crate) fn forked(in_child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the C library's fork keeps its allocator usable in the child, which touches no lock of this
    // program but those that crosslock guards, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(in_child));
            // SAFETY: ends the process, without destructors.
            unsafe { libc::_exit(i32::from(!done.unwrap_or(false))) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is ours to be written.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            status == 0
        }
    }
}
