//! This program again, as a process that shares nothing with its parent but a segment.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use crosslock::Segment;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A child process; killed if it is still there when nobody waits for it any more.
pub(crate) struct ChildProcess(Child);

impl ChildProcess {
    /// Starts `crosslock SUBCOMMAND --segment-fd N ARGS`.
    pub(crate) fn start<A: Into<OsString>>(
        subcommand: &str,
        segment: &Segment,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let fd = segment.descriptor()?;
        let mut command = command(subcommand, &fd, args);
        command.stdout(Stdio::piped());
        command.spawn().map(Self).context("cannot start a child process")
    }

    /// A hold on the process that stays good when its number is used again.
    pub(crate) fn handle(&self) -> anyhow::Result<Handle> {
        let pid = Pid::from_child(&self.0);
        Ok(Handle(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Waits for its end, and for what it [told](tell).
    pub(crate) fn result<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let mut told = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            stdout.read_to_string(&mut told)?;
        }
        let status = self.0.wait()?;
        if !status.success() {
            bail!("a child process failed: {status}");
        }
        serde_json::from_str(&told).context("a child process gave no result")
    }
}

/// `crosslock SUBCOMMAND --segment-fd N ARGS`, to be started while `segment` is open.
pub(crate) fn command<A: Into<OsString>>(
    subcommand: &str,
    segment: &OwnedFd,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let raw = segment.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    command
        .args([subcommand, "--segment-fd", &raw.to_string()])
        .args(["--parent", &std::process::id().to_string()])
        .args(args.into_iter().map(Into::into))
        .stdin(Stdio::null())
        // Ctrl-C on the terminal is for the parent, who passes it on.
        .process_group(0);
    let keep_open = move || {
        // SAFETY: `segment` is open until the child has been started, and so is its copy in the child.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(raw) };
        Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(keep_open) };
    command
}

/// See [`ChildProcess::handle`].
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// Asks for an orderly end.
    pub(crate) fn interrupt(&self) {
        // One that has ended needs no asking.
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::INT);
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every child is told.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Inherited {
    #[arg(long)]
    segment_fd: RawFd,
    #[arg(long)]
    parent: i32,
}

/// In the child: binds its life to the parent's, and attaches the segment that the parent passed.
pub(crate) fn attach(inherited: Inherited) -> anyhow::Result<Segment> {
    let Inherited { segment_fd, parent } = inherited;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if Pid::as_raw(rustix::process::getppid()) != parent {
        bail!("the parent process {parent} has ended");
    }
    if segment_fd <= libc::STDERR_FILENO {
        bail!("descriptor {segment_fd} cannot be a segment's");
    }
    // SAFETY: the parent left this descriptor open for this process, which knows it by this number only.
    let fd = unsafe { OwnedFd::from_raw_fd(segment_fd) };
    Ok(Segment::from_fd(fd)?)
}

/// In the child: tells the parent the result.
pub(crate) fn tell<T: Serialize>(result: &T) -> anyhow::Result<()> {
    Ok(serde_json::to_writer(std::io::stdout().lock(), result)?)
}
