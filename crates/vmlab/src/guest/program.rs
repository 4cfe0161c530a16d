//! Programs in a guest.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::link::{Progress, State};
use crate::error::{Error, Result};
use crate::external;
use crate::wire::{Exit, MAX_CHUNK, ProgramId, Request, Start};

/// How long a program may take where nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);

/// A program to be started in a guest. Its environment has only `PATH=/bin`.
#[derive(Debug)]
#[must_use]
pub struct Invocation<'a> {
    guest: &'a Arc<Inner>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// What a program has left when it has ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to its standard output and nobody has read before.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    guest: String,
    program: String,
}

/// A program that was started in a guest. It goes on when this is dropped.
///
/// Output that nobody reads is kept in this process's memory, however long it gets.
#[derive(Debug)]
pub struct Program {
    guest: Arc<Inner>,
    id: ProgramId,
    pid: u32,
    line: String,
}

/// A program that runs in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its process id there.
    pub pid: u32,
    /// Its path and arguments.
    pub argv: Vec<String>,
}

impl<'a> Invocation<'a> {
    pub(super) fn new(guest: &'a Arc<Inner>, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            guest,
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/bin".into())],
            stdin: None,
            limit: LIMIT,
        }
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With these bytes, and no more, as its standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long [`run`](Self::run) may take; a minute otherwise.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The guest cannot start it, is gone, or does not answer.
    pub fn start(self) -> Result<Program> {
        let line = self.argv.join(" ");
        let id = self.guest.link.register(self.argv.clone());
        let bytes = |text: String| text.into_bytes();
        let start = Start {
            argv: self.argv.into_iter().map(bytes).collect(),
            env: self.env.into_iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        };
        let waited_for = || format!("{line} to start");
        self.guest.send(id, &Request::Start(start), waited_for)?;
        let started = self.guest.wait(LIMIT, waited_for, |state| {
            let Progress { pid, failed, .. } = state.programs.get(&id)?;
            failed.clone().map(Err).or(pid.map(Ok))
        });
        let pid = match started {
            Ok(Ok(pid)) => pid,
            Ok(Err(reason)) => {
                self.guest.link.forget(id);
                return Err(Error::NotStarted { guest: self.guest.name.clone(), program: line, reason });
            }
            Err(error) => {
                self.guest.link.forget(id);
                return Err(error);
            }
        };
        let mut program = Program { guest: Arc::clone(self.guest), id, pid, line };
        if let Some(bytes) = &self.stdin {
            program.write(bytes)?;
            program.close_stdin()?;
        }
        Ok(program)
    }

    /// Runs it to its end, without input if [none was given](Self::stdin).
    ///
    /// # Errors
    /// As [`start`](Self::start); it does not end in time.
    pub fn run(mut self) -> Result<Output> {
        self.stdin.get_or_insert_default();
        let limit = self.limit;
        self.start()?.output(limit)
    }
}

impl Program {
    /// Its process id in the guest.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.guest.link.state().programs.get(&self.id).and_then(|program| program.exit)
    }

    /// Waits for its end, whatever becomes of its output.
    ///
    /// # Errors
    /// It does not end within `limit`, or the guest does.
    pub fn wait(&self, limit: Duration) -> Result<Exit> {
        self.look(limit, "end", |program| program.exit)
    }

    /// Waits for its end and for the end of its output, which comes when all processes that have its standard
    /// output and error have closed them.
    ///
    /// # Errors
    /// They do not end within `limit`, or the guest does.
    pub fn output(self, limit: Duration) -> Result<Output> {
        let (exit, stdout, stderr) = self.look(limit, "end", |program| {
            let exit = program.exit.filter(|_| program.has_all_output())?;
            Some((exit, program.stdout.take(), program.stderr.take()))
        })?;
        Ok(Output { exit, stdout, stderr, guest: self.guest.name.clone(), program: self.line.clone() })
    }

    /// The next line of its standard output, without its end; `None` after the last. Bytes that are not UTF-8
    /// are replaced.
    ///
    /// # Errors
    /// None comes within `limit`, or the guest is gone.
    pub fn line(&mut self, limit: Duration) -> Result<Option<String>> {
        let line = self.look(limit, "next line", |program| {
            let line = program.stdout.take_line();
            if line.is_none() && program.stdout.ended { Some(None) } else { line.map(Some) }
        })?;
        Ok(line.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.strip_suffix('\n').unwrap_or(&text).to_owned()
        }))
    }

    /// Waits for the end of its standard error, and gives what is there and was not given before.
    ///
    /// # Errors
    /// It does not end within `limit`, or the guest is gone.
    pub fn complaint(&self, limit: Duration) -> Result<String> {
        let bytes = self.look(limit, "end of the errors", |program| {
            program.stderr.ended.then(|| program.stderr.take())
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads lines until one contains `text`, and gives that one.
    ///
    /// # Errors
    /// None comes within `limit`, the output ends before it does, or the guest is gone.
    pub fn line_with(&mut self, text: &str, limit: Duration) -> Result<String> {
        let start = std::time::Instant::now();
        loop {
            match self.line(limit.saturating_sub(start.elapsed()))? {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => {
                    return Err(Error::NotFound {
                        what: format!("line with {text:?}"),
                        source_name: self.line.clone(),
                        text: format!("its output has ended ({:?})", self.exit()),
                    });
                }
            }
        }
    }

    /// Writes to its standard input. This does not wait for the program to read: the guest keeps what is not
    /// read yet.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.send(&Request::Stdin(chunk.to_vec()))?;
        }
        Ok(())
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn close_stdin(&mut self) -> Result<()> {
        self.send(&Request::StdinEnd)
    }

    /// Sends it a signal, by its number; one that has ended gets none.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn signal(&self, number: i32) -> Result<()> {
        self.send(&Request::Signal(number))
    }

    /// Kills it. Its end is to be [waited for](Self::wait).
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(rustix::process::Signal::KILL.as_raw())
    }

    fn send(&self, request: &Request) -> Result<()> {
        self.guest.send(self.id, request, || self.line.clone())
    }

    fn look<T>(
        &self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&mut Progress) -> Option<T>,
    ) -> Result<T> {
        let found = |state: &mut State| {
            let program = state.programs.get_mut(&self.id)?;
            match &program.failed {
                Some(why) => Some(Err(why.clone())),
                None => look(program).map(Ok),
            }
        };
        self.guest.wait(limit, || format!("{what} of {}", self.line), found)?.map_err(|reason| {
            Error::NotStarted { guest: self.guest.name.clone(), program: self.line.clone(), reason }
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.guest.link.forget(self.id);
    }
}

impl Output {
    /// Itself, if the program ended with status 0.
    ///
    /// # Errors
    /// It ended otherwise; the error has the end of its output.
    pub fn success(self) -> Result<Self> {
        if self.exit.is_success() {
            return Ok(self);
        }
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|bytes| external::tail(bytes));
        Err(Error::Unsuccessful { guest: self.guest, program: self.program, exit: self.exit, stdout, stderr })
    }

    /// Its standard output as text, with what is not UTF-8 replaced and without white space around.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}
