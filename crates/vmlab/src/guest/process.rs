//! QEMU's process: it ends with this one, whatever becomes of this one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

/// A process; killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    handle: OwnedFd,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`, which inherits the descriptors `inherited` under their numbers here.
    pub(super) fn start(mut command: Command, inherited: Vec<OwnedFd>) -> io::Result<Self> {
        let parent = rustix::process::getpid();
        let prepare = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            for fd in &inherited {
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let child = spawn(command)?;
        let handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { pid: child.id(), handle, child: Mutex::new(child) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it, if it still lives. Its end is to be waited for.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Its exit status; `None` if it has none within `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let limit = Timespec::try_from(limit).ok();
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        match poll(&mut handle, limit.as_ref()) {
            Ok(0) => None,
            _ => self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // A process that does not die in this time is stuck in the kernel, and will not be waited for.
        self.wait(Duration::from_secs(10));
    }
}

/// Starts `command` from a thread that lives as long as this process: what the kernel calls the death of the
/// parent is that of the thread that forked.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static NURSERY: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, done) in orders {
                let child = command.spawn();
                // With the command go this process's copies of the descriptors that the child has inherited.
                drop(command);
                // Whoever does not wait for it is gone.
                let _ = done.send(child);
            }
        });
        Mutex::new(sender)
    });
    let (done, child) = channel();
    let sent = nursery.lock().unwrap_or_else(PoisonError::into_inner).send((command, done));
    sent.map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    child.recv().map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Instant;

    use super::*;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it_and_dies_when_killed() {
        let process = std::thread::spawn(|| Process::start(sleeper(), Vec::new()).unwrap()).join().unwrap();
        assert_eq!(process.wait(Duration::from_millis(100)), None);
        process.kill();
        let status = process.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        assert_eq!(process.wait(Duration::ZERO), Some(status));
    }

    #[test]
    fn a_dropped_one_is_dead() {
        let start = Instant::now();
        let process = Process::start(sleeper(), Vec::new()).unwrap();
        let path = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&path).exists());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn inherited_descriptors_and_no_others_reach_it() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo here >&{number}")]);
        let process = Process::start(command, vec![theirs.into()]).unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap().success());
        // All copies of the other end are closed, so this ends.
        assert_eq!(io::read_to_string(ours).unwrap(), "here\n");
    }
}
