//! Everything around one victim: the segment, those who are there before it, and those who come.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use crosslock::Segment;
use rustix::thread::CpuSet;

use super::asleep::Sleeper;
use super::audit::Findings;
use super::crew::Crew;
use super::lock::{CrashLock, NAME};
use super::scenario::{Dead, LockKind, Operation, Owner, Scenario};
use super::tracer::Moment;
use super::victim::{OBJECT, options};
use crate::child;

/// How long the others may take to finish their work when the victim is dead.
const BOUND: Duration = Duration::from_secs(5);
/// The same where they are expected not to.
const CONTROL_BOUND: Duration = Duration::from_secs(1);
/// Until one that is to die is where it is to die.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name of the subcommand that is the victim.
const VICTIM: &str = "stepkill-victim";

/// A directory that vanishes with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(job: usize) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/dev/shm/crosslock-stepkill-{}-{job}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("crosslock: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// See the module.
pub(super) struct Stage<'a> {
    scenario: &'a Scenario,
    segment: Segment,
    crew: Crew,
    directory: Option<Directory>,
}

impl<'a> Stage<'a> {
    /// All is as the victim shall find it. `job` is a number that no other stage has now.
    pub(super) fn new<L: CrashLock>(
        scenario: &'a Scenario,
        cpus: CpuSet,
        job: usize,
    ) -> anyhow::Result<Self> {
        let segment = options().create_memfd("stepkill")?;
        L::create(&segment, NAME)?;
        let crew = Crew::new(&segment, cpus);
        let creates_file = scenario.operation == Operation::CreateSegment;
        let directory = creates_file.then(|| Directory::new(job)).transpose()?;
        let mut stage = Self { scenario, segment, crew, directory };
        if scenario.dead == Dead::Owner {
            stage.let_owner_die()?;
        }
        if scenario.owner != Owner::Nobody {
            stage.crew.owner::<L>()?;
        }
        if scenario.dead == Dead::Waiter {
            stage.let_waiter_die()?;
        }
        stage.crew.sleepers::<L>(scenario.before)?;
        Ok(stage)
    }

    fn command(&self, operation: Operation) -> anyhow::Result<(Command, std::os::fd::OwnedFd)> {
        fn said(value: &impl ValueEnum) -> OsString {
            value.to_possible_value().map(|value| value.get_name().into()).unwrap_or_default()
        }
        let fd = self.segment.descriptor()?;
        let lock: LockKind = self.scenario.lock;
        let mut args = vec!["--operation".into(), said(&operation), "--lock".into(), said(&lock)];
        if let Some(Directory(path)) = &self.directory {
            args.extend(["--directory".into(), path.into()]);
        }
        let mut command = child::command(VICTIM, &fd, args);
        command.stdout(Stdio::null());
        Ok((command, fd))
    }

    /// To be started while the descriptor is open.
    pub(super) fn victim(&self) -> anyhow::Result<(Command, std::os::fd::OwnedFd)> {
        self.command(self.scenario.operation)
    }

    fn let_owner_die(&self) -> anyhow::Result<()> {
        let (mut command, _fd) = self.command(Operation::DieInside)?;
        let status = command.status()?;
        if status.signal() != Some(libc::SIGKILL) {
            bail!("the one that should have died inside did not: {status}");
        }
        Ok(())
    }

    fn let_waiter_die(&self) -> anyhow::Result<()> {
        let (mut command, _fd) = self.command(Operation::Wait)?;
        let mut waiter = command.stdout(Stdio::piped()).spawn()?;
        let mut said = [0];
        let ready = waiter.stdout.as_mut().context("no pipe")?.read_exact(&mut said);
        let process = i32::try_from(waiter.id())?;
        let asleep = ready.is_ok() && Sleeper::new(process, process).wait(PATIENCE);
        waiter.kill()?;
        waiter.wait()?;
        if !asleep {
            bail!("the one that should have died asleep did not sleep");
        }
        Ok(())
    }

    /// Those who are there react on what the victim does.
    pub(super) fn react<L: CrashLock>(&mut self, moment: Moment) -> anyhow::Result<()> {
        let Scenario { at_begin, when_held, behind, at_death, owner, .. } = *self.scenario;
        match moment {
            Moment::Begin => self.crew.sleepers::<L>(at_begin),
            Moment::Held => self.crew.sleepers::<L>(when_held),
            Moment::Asleep => {
                self.crew.sleepers::<L>(behind)?;
                if owner == Owner::UntilAsleep {
                    self.crew.let_go();
                }
                Ok(())
            }
            Moment::Kill => {
                for _ in 0..at_death {
                    self.crew.worker::<L>()?;
                }
                Ok(())
            }
        }
    }

    /// The victim is dead: what is wrong?
    pub(super) fn audit<L: CrashLock>(mut self) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        let bound = if self.scenario.is_to_be_caught() { CONTROL_BOUND } else { BOUND };
        let unsure = self.scenario.unsure_sections();
        if findings.survivors::<L>(&mut self.crew, &self.segment, unsure, bound)? {
            findings.slots(&self.segment)?;
            findings.objects::<L>(&self.segment, heap_with_object::<L>()?)?;
        }
        if let Some(Directory(path)) = &self.directory {
            findings.directory(path)?;
        }
        Ok(findings)
    }
}

/// How much of the heap is used when [`OBJECT`] has been created, and nobody has died.
fn heap_with_object<L: CrashLock>() -> anyhow::Result<usize> {
    let segment = options().create_memfd("stepkill")?;
    L::create(&segment, NAME)?;
    L::create(&segment, OBJECT)?;
    Ok(segment.heap_used()?)
}
