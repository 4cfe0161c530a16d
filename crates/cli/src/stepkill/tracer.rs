//! A process that is executed instruction by instruction and killed exactly where one likes, by `ptrace`.
//!
//! All calls about a victim come from the thread that started it: the kernel knows no other tracer. Address
//! space layout is not randomised, so the same operation has the same addresses in every victim.

use std::collections::HashMap;
use std::mem::offset_of;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use libc::user_regs_struct;
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::asleep::Sleeper;
use super::breakpoints;
use super::mark::Mark;
use super::path::{Anchor, Path, Point};

/// Looks at a running victim that give the CPU to it; after that the tracer sleeps between two looks.
const QUICK_LOOKS: u32 = 1000;
/// A victim that neither stops nor sleeps for so long is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(500);
/// `si_code` of a breakpoint instruction's trap: SI_KERNEL.
const TRAP_BY_INT3: i32 = 0x80;
/// FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
const FUTEX_FLAGS: u64 = 0x180;
/// No operation has as many instructions.
const MAX_STEPS: usize = 1 << 20;

/// What the others are to react on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The victim is about to begin.
    Begin,
    /// The victim has the lock.
    Held,
    /// The victim sleeps.
    Asleep,
    /// The victim is killed next.
    Kill,
}

/// How to get to a point; the next is slower, and surer to get there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// Runs almost to it.
    Leap(&'a Path),
    /// Runs through what the path has been through before, steps through what is new.
    Hop(&'a Path),
    /// Step by step.
    Step,
}

/// How [`Victim::run_to`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// There it stands.
    Yes,
    /// Its operation ended before.
    Ended,
    /// It stands elsewhere: it has taken another path.
    Astray,
}

#[derive(Clone, Copy)]
enum How {
    Step,
    Run,
}

#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Trap,
    Mark(Mark),
    Asleep,
    Ended,
}

/// A process that stands still unless told otherwise. Killed when dropped.
pub(super) struct Victim {
    child: Child,
    leader: Pid,
    /// The traced thread: the leader, or the one that the leader has started.
    thread: Pid,
    /// Addresses that have been looked at, and whether a system call is there.
    calls: HashMap<u64, bool>,
    /// Whether its sleep is to be told.
    watched: bool,
    slept: bool,
}

/// Reactions of the others.
pub(super) type Reaction<'a> = &'a mut dyn FnMut(Moment) -> anyhow::Result<()>;

impl Victim {
    /// Starts `command`, which lets itself be traced, and lets it come to its operation.
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        let prepare = || {
            personality::set(personality::get()? | Persona::ADDR_NO_RANDOMIZE)?;
            Ok(ptrace::traceme()?)
        };
        // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().context("cannot start a victim")?;
        let leader = Pid::from_raw(i32::try_from(child.id())?);
        let mut victim =
            Self { child, leader, thread: leader, calls: HashMap::new(), watched: false, slept: false };
        match waitpid(leader, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => bail!("the victim does not stand before its first instruction: {other:?}"),
        }
        ptrace::setoptions(leader, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACECLONE)?;
        victim.resume(How::Run, None)?;
        match victim.stop(How::Run)? {
            Stop::Mark(Mark::Begin) => {}
            other => bail!("the victim's preparation ended in {other:?}"),
        }
        victim.watched = true;
        Ok(victim)
    }

    /// Goes through the operation to its end, step by step.
    pub(super) fn record(&mut self, react: Reaction<'_>) -> anyhow::Result<Path> {
        let mut addresses = vec![self.instruction()?];
        let mut sleep = None;
        loop {
            let stop = self.next(How::Step, react)?;
            if self.slept && sleep.is_none() {
                sleep = addresses.last().copied();
            }
            match stop {
                Stop::Ended => return Ok(Path::new(addresses, sleep)),
                _ if addresses.len() < MAX_STEPS => addresses.push(self.instruction()?),
                _ => bail!("the operation does not end within {MAX_STEPS} instructions"),
            }
        }
    }

    /// Goes to `point`.
    pub(super) fn run_to(
        &mut self,
        point: Point,
        way: Way<'_>,
        react: Reaction<'_>,
    ) -> anyhow::Result<Reached> {
        let Point::After(steps) = point else { return self.run_to_sleep(react) };
        let mut done = 0;
        while done < steps {
            let anchor = match way {
                Way::Leap(path) if done == 0 => path.anchor(steps).map(|anchor| (path, anchor)),
                Way::Hop(path) => path.hop(done, steps).map(|anchor| (path, anchor)),
                Way::Leap(_) | Way::Step => None,
            };
            if let Some((path, anchor)) = anchor {
                match self.run_to_anchor(anchor, path.sleep(), react)? {
                    Reached::Yes => done = anchor.index,
                    elsewhere => return Ok(elsewhere),
                }
            } else {
                match self.next(How::Step, react)? {
                    Stop::Ended => return Ok(Reached::Ended),
                    Stop::Trap | Stop::Mark(_) | Stop::Asleep => done += 1,
                }
            }
        }
        let found = self.instruction()?;
        let expected = match way {
            Way::Leap(path) | Way::Hop(path) => path.address(steps),
            Way::Step => None,
        };
        Ok(if expected.is_none_or(|expected| expected == found) { Reached::Yes } else { Reached::Astray })
    }

    fn run_to_sleep(&mut self, react: Reaction<'_>) -> anyhow::Result<Reached> {
        loop {
            self.resume(How::Run, None)?;
            match self.stop(How::Run)? {
                Stop::Asleep => return Ok(Reached::Yes),
                Stop::Mark(Mark::Held) => react(Moment::Held)?,
                Stop::Mark(Mark::Begin) | Stop::Trap => {}
                Stop::Mark(Mark::End) | Stop::Ended => return Ok(Reached::Ended),
            }
        }
    }

    /// On the way it is stopped where it slept the other time, for the same things to happen at the same places.
    fn run_to_anchor(
        &mut self,
        anchor: Anchor,
        sleep: Option<u64>,
        react: Reaction<'_>,
    ) -> anyhow::Result<Reached> {
        let (sleep, mut stops) = (sleep.filter(|_| self.watched), vec![anchor.address]);
        stops.extend(sleep.filter(|&sleep| sleep != anchor.address));
        if breakpoints::set(self.thread, &stops).is_err() {
            // A machine without breakpoint registers: slow, but as exact.
            return Ok(Reached::Astray);
        }
        let mut visits = 0;
        loop {
            match self.next(How::Run, react)? {
                Stop::Trap => {}
                Stop::Asleep | Stop::Mark(_) => continue,
                Stop::Ended => return Ok(Reached::Ended),
            }
            let place = self.instruction()?;
            if place == anchor.address {
                visits += 1;
                if visits == anchor.visit {
                    break;
                }
            }
            if Some(place) == sleep && self.watched && self.is_before_sleep()? {
                // From where it then stands it runs into the breakpoint, if there is one.
                if self.next(How::Step, react)? == Stop::Ended {
                    return Ok(Reached::Ended);
                }
            }
        }
        breakpoints::set(self.thread, &[])?;
        Ok(Reached::Yes)
    }

    /// Lets it go on until it stops; the others react on what happens in between.
    fn next(&mut self, how: How, react: Reaction<'_>) -> anyhow::Result<Stop> {
        let sleeps = matches!(how, How::Step) && self.watched && self.is_before_sleep()?;
        self.resume(how, None)?;
        loop {
            let stop = self.stop(how)?;
            match stop {
                Stop::Asleep => react(Moment::Asleep)?,
                Stop::Mark(Mark::End) => return Ok(Stop::Ended),
                Stop::Mark(Mark::Held) => return react(Moment::Held).map(|()| stop),
                Stop::Mark(Mark::Begin) | Stop::Trap | Stop::Ended => {
                    // It slept so shortly that nobody saw it. Step by step all time-outs are short.
                    if sleeps && self.watched {
                        self.watched = false;
                        self.slept = true;
                        react(Moment::Asleep)?;
                    }
                    return Ok(stop);
                }
            }
        }
    }

    /// Whether its next instruction is a system call that puts it to sleep.
    fn is_before_sleep(&mut self) -> anyhow::Result<bool> {
        /// Linux's numbers in `futex`'s second argument, without the flags.
        const WAITS: [u64; 2] = [libc::FUTEX_WAIT as u64, libc::FUTEX_WAIT_BITSET as u64];
        const SYSCALL: [u8; 2] = [0x0f, 0x05];

        let address = self.instruction()?;
        let is_call = match self.calls.get(&address) {
            Some(&is_call) => is_call,
            None => {
                let bytes = ptrace::read(self.thread, address as AddressType)?.to_ne_bytes();
                *self.calls.entry(address).or_insert(bytes.starts_with(&SYSCALL))
            }
        };
        if !is_call {
            return Ok(false);
        }
        let regs = ptrace::getregs(self.thread)?;
        Ok(match regs.rax.cast_signed() {
            libc::SYS_futex => WAITS.contains(&(regs.rsi & !FUTEX_FLAGS)),
            call => [libc::SYS_futex_waitv, libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&call),
        })
    }

    fn resume(&self, how: How, signal: Option<Signal>) -> nix::Result<()> {
        match how {
            How::Step => ptrace::step(self.thread, signal),
            How::Run => ptrace::cont(self.thread, signal),
        }
    }

    /// Waits until it stops or, once in its operation, sleeps.
    fn stop(&mut self, how: How) -> anyhow::Result<Stop> {
        loop {
            match self.wait()? {
                None => return Ok(Stop::Asleep),
                Some(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {
                    return match ptrace::getsiginfo(self.thread)?.si_code {
                        TRAP_BY_INT3 => {
                            let rdi = ptrace::getregs(self.thread)?.rdi;
                            let mark = Mark::from_register(rdi);
                            mark.map(Stop::Mark)
                                .with_context(|| format!("a breakpoint that is no mark: {rdi:#x}"))
                        }
                        // TRAP_BRKPT is how the kernel reports a step over a system call.
                        libc::TRAP_TRACE | libc::TRAP_HWBKPT | libc::TRAP_BRKPT => Ok(Stop::Trap),
                        other => bail!("the victim got a SIGTRAP of kind {other}"),
                    };
                }
                Some(WaitStatus::Stopped(_, signal)) => self.resume(how, Some(signal))?,
                Some(WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE)) => self.follow()?,
                Some(WaitStatus::Exited(..)) => return Ok(Stop::Ended),
                Some(other) => bail!("the victim has met with {other:?}"),
            }
        }
    }

    /// The leader has started a thread: that is the victim from now on.
    fn follow(&mut self) -> anyhow::Result<()> {
        let thread = Pid::from_raw(i32::try_from(ptrace::getevent(self.thread)?)?);
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            other => bail!("the victim's thread does not stand before its first instruction: {other:?}"),
        }
        ptrace::cont(self.thread, None)?;
        self.thread = thread;
        ptrace::cont(self.thread, None)?;
        Ok(())
    }

    /// What happened to it; `None`: it sleeps, which is told once.
    fn wait(&mut self) -> anyhow::Result<Option<WaitStatus>> {
        let look = || match waitpid(self.thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(status) => Ok(Some(status)),
            Err(error) => Err(error),
        };
        for _ in 0..QUICK_LOOKS {
            if let Some(status) = look()? {
                return Ok(Some(status));
            }
            std::thread::yield_now();
        }
        let mut sleeper = Sleeper::new(self.leader.as_raw(), self.thread.as_raw());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = look()? {
                return Ok(Some(status));
            }
            if self.watched && sleeper.is_asleep() {
                self.watched = false;
                self.slept = true;
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
        bail!(Hung)
    }

    fn instruction(&self) -> nix::Result<u64> {
        let rip = ptrace::read_user(self.thread, offset_of!(user_regs_struct, rip) as AddressType)?;
        Ok(rip.cast_unsigned())
    }

    /// Where it stands, for people: the address, and the bytes there.
    pub(super) fn place(&self) -> anyhow::Result<String> {
        let address = self.instruction()?;
        let bytes = ptrace::read(self.thread, address as AddressType)?.to_ne_bytes();
        Ok(format!("{address:#x}: {bytes:02x?}"))
    }

    /// Kills it, and sees it dead. It stays a zombie until this value is dropped.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        kill(self.leader, Signal::SIGKILL)?;
        if self.thread != self.leader {
            // Its leader is not reported dead before it is reaped.
            let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL));
        }
        waitid(Id::Pid(self.leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        if self.thread != self.leader {
            let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL));
        }
        let _ = self.child.wait();
    }
}

/// The victim neither stops nor sleeps as it should.
#[derive(Debug)]
pub(super) struct Hung;

impl std::fmt::Display for Hung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the victim did not come on within {PATIENCE:?}")
    }
}

impl std::error::Error for Hung {}
