//! A process that uses the segment, in a guest or on the host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use vmlab::Program;

use crate::said::{Counted, Got, Said};

/// How long the next word of an actor may take where nothing else is said.
const SOON: Duration = Duration::from_secs(60);

/// A running process of the lab's program.
#[derive(Debug)]
pub struct Actor {
    /// Who it is, for errors.
    label: String,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Guest(Program),
    Host { child: Child, lines: Receiver<String> },
}

impl Actor {
    /// What runs in a guest.
    pub(crate) fn in_guest(label: String, program: Program) -> Self {
        Self { label, process: Process::Guest(program) }
    }

    /// Starts a process of this machine; it is killed with this value.
    pub(crate) fn on_host(label: String, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            // When nobody listens any more, that is the end.
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { label, process: Process::Host { child, lines } })
    }

    fn line(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        match &mut self.process {
            Process::Guest(program) => Ok(program.line(limit)?),
            Process::Host { lines, .. } => match lines.recv_timeout(limit) {
                Ok(line) => Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => Ok(None),
                Err(RecvTimeoutError::Timeout) => bail!("said nothing for {limit:?}"),
            },
        }
    }

    /// What it says next.
    ///
    /// # Errors
    /// Nothing for so long; it has ended.
    pub fn hear_within(&mut self, limit: Duration) -> anyhow::Result<Said> {
        let line = self.line(limit).with_context(|| self.label.clone())?;
        let Some(line) = line else {
            let end = self.last_words();
            bail!("{} has ended{end}", self.label);
        };
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.label))
    }

    /// The same, within a minute.
    ///
    /// # Errors
    /// As [`Actor::hear_within`].
    pub fn hear(&mut self) -> anyhow::Result<Said> {
        self.hear_within(SOON)
    }

    /// Waits for exactly that word.
    ///
    /// # Errors
    /// As [`Actor::hear_within`]; it says something else.
    pub fn expect(&mut self, said: &Said) -> anyhow::Result<()> {
        let heard = self.hear()?;
        if heard == *said { Ok(()) } else { bail!("{} said {heard:?} instead of {said:?}", self.label) }
    }

    /// Its account of its critical sections.
    ///
    /// # Errors
    /// As [`Actor::hear_within`]; it says something else.
    pub fn counted(&mut self, limit: Duration) -> anyhow::Result<Counted> {
        match self.hear_within(limit)? {
            Said::Counted(counted) => Ok(counted),
            other => bail!("{} said {other:?}", self.label),
        }
    }

    /// The account of all of them together.
    ///
    /// # Errors
    /// As [`Actor::counted`].
    pub fn counted_together(actors: &mut [Self], limit: Duration) -> anyhow::Result<Counted> {
        actors.iter_mut().map(|actor| actor.counted(limit)).sum()
    }

    /// How it got the lock, and when this was known here.
    ///
    /// # Errors
    /// As [`Actor::hear_within`]; it says something else.
    pub fn got(&mut self, limit: Duration) -> anyhow::Result<(Got, Instant)> {
        match self.hear_within(limit)? {
            Said::Got(got) => Ok((got, Instant::now())),
            other => bail!("{} said {other:?}", self.label),
        }
    }

    /// Its account of a ping-pong: messages out of order or missing, the median round in microseconds, and of how many.
    ///
    /// # Errors
    /// As [`Actor::hear_within`]; it says something else.
    pub fn played(&mut self, wanted: u64, limit: Duration) -> anyhow::Result<(u64, f64, u64)> {
        match self.hear_within(limit)? {
            Said::Played { rounds, out_of_order, median_us, measured } => {
                Ok((out_of_order + wanted.abs_diff(rounds), median_us, measured))
            }
            other => bail!("{} said {other:?}", self.label),
        }
    }

    /// Whether it has said nothing for so long.
    ///
    /// # Errors
    /// It has ended.
    pub fn is_silent(&mut self, time: Duration) -> anyhow::Result<bool> {
        match &mut self.process {
            Process::Guest(program) => match program.line(time) {
                Err(vmlab::Error::TimedOut { .. }) => Ok(true),
                line => line.map(|_| false).map_err(Into::into),
            },
            Process::Host { lines, .. } => {
                Ok(matches!(lines.recv_timeout(time), Err(RecvTimeoutError::Timeout)))
            }
        }
    }

    /// Gives it the line that it waits for.
    ///
    /// # Errors
    /// It is gone.
    pub fn go(&mut self) -> anyhow::Result<()> {
        match &mut self.process {
            Process::Guest(program) => Ok(program.write(b"\n")?),
            Process::Host { child, .. } => Ok(child.stdin.as_mut().context("no input")?.write_all(b"\n")?),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.process {
            Process::Guest(program) => Ok(program.kill()?),
            Process::Host { child, .. } => Ok(child.kill()?),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The guest is gone, or it does not end.
    pub fn wait_end(&mut self) -> anyhow::Result<()> {
        match &mut self.process {
            Process::Guest(program) => program.wait(SOON).map(drop).map_err(Into::into),
            Process::Host { child, .. } => child.wait().map(drop).map_err(Into::into),
        }
    }

    /// How it ended, and what it complained of.
    fn last_words(&mut self) -> String {
        match &mut self.process {
            Process::Guest(program) => {
                let exit = program.exit().map_or_else(String::new, |exit| format!(": {exit}"));
                let complaint = program.complaint(Duration::from_secs(1)).unwrap_or_default();
                format!("{exit} {}", complaint.trim())
            }
            Process::Host { child, .. } => {
                child.wait().map_or_else(|_| String::new(), |status| format!(": {status}"))
            }
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Process::Host { child, .. } = &mut self.process {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
