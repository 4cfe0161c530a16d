//! People in a segment: who hold, wait, read, and die.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crosslock::{LockInfo, Segment};

/// A thread that keeps what it took until this is dropped; it may have to wait before, for the next one that is dropped.
pub(crate) struct Holder(Sender<()>);

impl Holder {
    /// Starts a thread of that name, which takes something by `take`; does not wait until it has it.
    pub(crate) fn start<G>(
        name: &str,
        segment: &Segment,
        take: impl FnOnce(&Segment, &mut dyn FnMut()) -> G + Send + 'static,
    ) -> Self {
        let (segment, (done, is_done)) = (segment.clone(), channel::<()>());
        let hold = move || {
            // Ends when the other end is dropped.
            take(&segment, &mut || {
                let _ = is_done.recv();
            });
        };
        std::thread::Builder::new().name(name.into()).spawn(hold).unwrap();
        Self(done)
    }

    /// Has, or wants, the mutex `object`.
    pub(crate) fn of_mutex(name: &str, segment: &Segment, object: &'static str) -> Self {
        Self::start(name, segment, move |segment, keep| {
            let mutex = segment.mutex(object, 0u64).unwrap();
            let guard = mutex.lock();
            keep();
            drop(guard);
        })
    }
}

pub(crate) fn lock(segment: &Segment, object: &str) -> LockInfo {
    segment.locks().into_iter().find(|lock| lock.object.name == object).unwrap()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn until_owned(segment: &Segment, object: &str) {
    eventually("somebody has it", || {
        segment.locks().iter().any(|lock| lock.object.name == object && lock.owner.is_some())
    });
}

pub(crate) fn until_waiters(segment: &Segment, object: &str, count: usize) {
    eventually("they wait", || lock(segment, object).waiters.len() == count);
}

/// Lets another process do `deed` in the segment and be killed; gives its process id.
pub(crate) fn killed_inside(name: &str, deed: impl FnOnce(&Segment)) -> u32 {
    // SAFETY: the C library's fork keeps its allocator usable in the child, which touches no lock of this program, and is
    // killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let segment = Segment::open(name).inspect(deed);
        // SAFETY: ends this process; the segment is still open.
        unsafe { libc::raise(libc::SIGKILL) };
        drop(segment);
    }
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    // SAFETY: nothing is to be written.
    let waited = unsafe { libc::waitpid(child, core::ptr::null_mut(), 0) };
    assert_eq!(waited, child);
    child.unsigned_abs()
}

/// The command on a terminal of 80 columns and 24 lines.
pub(crate) struct OnTerminal {
    child: Child,
    terminal: File,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl OnTerminal {
    pub(crate) fn start(args: &[&str]) -> Self {
        let (mut terminal, mut inside) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let (name, modes, size) = (core::ptr::null_mut(), core::ptr::null(), &raw const size);
        let (one, other) = (&raw mut terminal, &raw mut inside);
        // SAFETY: all that is written or read is ours.
        let made = unsafe { libc::openpty(one, other, name, modes, size) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and known to nobody else.
        let terminal = File::from(unsafe { OwnedFd::from_raw_fd(terminal) });
        // SAFETY: as above.
        let inside = unsafe { OwnedFd::from_raw_fd(inside) };
        let child = Command::new(env!("CARGO_BIN_EXE_crosslock"))
            .args(args)
            .env("TERM", "xterm")
            .stdin(inside.try_clone().unwrap())
            .stdout(Stdio::from(inside.try_clone().unwrap()))
            .stderr(Stdio::from(inside))
            .spawn()
            .unwrap();
        let (mut read, written) = (terminal.try_clone().unwrap(), Arc::default());
        let all: Arc<Mutex<Vec<u8>>> = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with EIO when the last one has closed the terminal.
            while let Ok(len @ 1..) = read.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..len]);
            }
        });
        Self { child, terminal, written, reader }
    }

    /// All that it has written.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Waits until it has written that.
    pub(crate) fn until(&self, text: &str) {
        eventually(text, || self.written().contains(text));
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits for its end; gives all that it wrote.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        eventually("it has ended", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let (written, reader) = (Arc::clone(&self.written), self.reader);
        reader.join().unwrap();
        (status, String::from_utf8_lossy(&written.lock().unwrap()).into_owned())
    }
}
