//! Open file descriptions that are this process's own, also after a fork.
//!
//! A descriptor that is inherited or passed shares its description, and with it the leases. So a segment
//! is always opened anew, and the child of a fork gets a description of its own under the same descriptor
//! number before `fork` returns in it: it holds none of the parent's leases, and cannot keep them alive when
//! the parent dies. Only until it runs, or executes another program, do they outlive the parent. A child made
//! past the C library (`clone`, `_Fork`) is not helped.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crosslock_core::primitive::{AtomicU32, Ordering};
use rustix::fs::{Mode as FileMode, OFlags};

use crate::lease::{Lease, Mode};

/// What becomes of a description in the child of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InChild {
    /// The child attaches anew.
    Attach,
    /// The child has nothing to do with it: it holds the registry lock of a parent's thread.
    Cut,
    /// The child may share it: it never holds a lease.
    Share,
}

/// An open file description that no other process has.
#[derive(Debug)]
pub(crate) struct Description {
    /// `None` only inside `drop`.
    fd: Option<OwnedFd>,
}

type Tracked = Vec<(RawFd, InChild)>;

/// Every [`Description`] there is. Locked around a fork, so that it can happen neither between the opening
/// of a descriptor and its entry here, nor between its removal and its closing.
static TRACKED: Mutex<Tracked> = Mutex::new(Vec::new());

/// How often this process has been forked off, over all its ancestors.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// Names this process among its fork ancestors, never 0: what was noted under another generation is a
/// parent's.
#[inline]
pub(crate) fn generation() -> u32 {
    // Relaxed: changes only where there is but one thread.
    GENERATION.load(Ordering::Relaxed)
}

fn tracked() -> MutexGuard<'static, Tracked> {
    TRACKED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Description {
    /// Takes over what `open` opens: a new description.
    pub(crate) fn track<E>(in_child: InChild, open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        install_fork_handlers();
        let mut tracked = tracked();
        let fd = open()?;
        tracked.push((fd.as_raw_fd(), in_child));
        drop(tracked);
        Ok(Self { fd: Some(fd) })
    }

    /// A new description of the file behind `fd`.
    pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlags, in_child: InChild) -> io::Result<Self> {
        Self::track(in_child, || reopen(fd.as_raw_fd(), flags))
    }
}

impl AsFd for Description {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("taken out by drop alone"),
        }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let mut tracked = tracked();
        if let Some(fd) = self.fd.take() {
            tracked.retain(|&(number, _)| number != fd.as_raw_fd());
        }
    }
}

/// Opens the file behind the descriptor anew. Does not allocate.
pub(crate) fn reopen(fd: RawFd, flags: OFlags) -> io::Result<OwnedFd> {
    let mut path = [0; 32];
    let mut rest = &mut path[..];
    write!(rest, "/proc/self/fd/{fd}")?;
    let unused = rest.len();
    let path = &path[..path.len() - unused];
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, FileMode::empty())?)
}

thread_local! {
    /// What the forking thread holds from before the fork until after it.
    static HELD: Cell<Option<MutexGuard<'static, Tracked>>> = const { Cell::new(None) };
}

fn install_fork_handlers() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handlers are functions that live as long as the program; they may be called by any
        // thread that forks.
        let _ = unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
        // Fails only without memory, and then forks are not watched.
    });
}

extern "C" fn before_fork() {
    // A thread that forks in the last moments of its life goes unguarded.
    let _ = HELD.try_with(|held| held.set(Some(tracked())));
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(Cell::take);
}

/// Runs in the child, whose only thread this is; makes system calls and touches no other lock.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    crate::place::forget_me();
    let Ok(Some(tracked)) = HELD.try_with(Cell::take) else { return };
    for &(number, in_child) in tracked.iter() {
        let fresh = match in_child {
            InChild::Attach => reopen(number, OFlags::RDWR)
                .and_then(|fd| Lease::Attached.try_lock(fd.as_fd(), Mode::Shared).map(|_| fd)),
            InChild::Cut => dead_end(),
            InChild::Share => continue,
        };
        let Ok(fresh) = fresh.or_else(|_| dead_end()) else { continue };
        // SAFETY: `number` stays an open descriptor of the same owner; it only means another file now.
        let _ = unsafe { libc::dup3(fresh.as_raw_fd(), number, libc::O_CLOEXEC) };
        // Fails for none of the reasons in the manual: both are open and differ.
    }
}

/// A descriptor that can be closed, and refuses everything else.
fn dead_end() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())?)
}
