//! Other processes for tests: the test binary runs itself, with a role in the environment.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod names;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crosslock::{Options, Segment};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "CROSSLOCK_TEST_ROLE";
const DIRECTORY: &str = "CROSSLOCK_TEST_DIRECTORY";

/// The role and the options of this process, if it was started by [`Actor::start`].
pub(crate) fn role() -> Option<(String, Options)> {
    Some((std::env::var(ROLE).ok()?, small(&directory()?)))
}

/// The directory of this process, likewise.
pub(crate) fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
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

    /// Lets it go on from where it waits for a line.
    pub(crate) fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
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

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
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

/// From now on a panic in any thread ends this process: for those that others wait for.
pub(crate) fn abort_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::abort();
    }));
}

/// Random numbers: xorshift64* (Vigna, 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Never 0, and well mixed.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// An index of that many things.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Seconds from that variable of the environment, or `default`: for tests that can run longer.
pub(crate) fn seconds(variable: &str, default: u64) -> Duration {
    let given = std::env::var(variable).ok();
    Duration::from_secs(given.map_or(default, |given| given.parse().unwrap()))
}

/// Sees to it that as many threads can be registered at once as there are slots, of which `others_have` are in use.
pub(crate) fn all_slots_can_be_had(segment: &Segment, others_have: usize) {
    eventually("all slots are free", || {
        let others = segment.slots() - others_have;
        let all_have_asked = std::sync::Barrier::new(others);
        std::thread::scope(|scope| {
            let ask = || {
                let got = segment.register().is_ok();
                all_have_asked.wait();
                got
            };
            let asking: Vec<_> = (0..others).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|one| one.join().unwrap()).filter(|got| *got).count() == others
        })
    });
}
