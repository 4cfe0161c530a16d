//! Runs programs for the host.
//!
//! One thread reads what the host asks. Each program has four of its own: to feed its input, so that one that
//! does not read holds up nobody else; for each of its outputs; and to wait for its end.

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal};
use vmlab::wire::{Event, Exit, MAX_CHUNK, ProgramId, Request, Start, VERSION, WireError};

use crate::port;

/// Serves until the host hangs up.
pub(crate) fn serve() -> Result<(), Box<dyn Error>> {
    let mut requests = port::open()?;
    let host = Host(Arc::new(Mutex::new(requests.try_clone()?)));
    // This write waits for the host's end of the port; a read before it would take a late host for the end.
    host.tell(0, &Event::Hello(VERSION))?;
    let running = Running::default();
    while let Some((id, request)) = Request::read(&mut requests)? {
        let mut programs = running.lock();
        match (request, programs.get_mut(&id)) {
            (Request::Start(start), _) => match Program::start(&start, id, &host, &running) {
                Ok(program) => drop(programs.insert(id, program)),
                Err(error) => host.tell(id, &Event::Failed(error.to_string()))?,
            },
            (Request::Stdin(bytes), Some(Program { stdin: Some(stdin), .. })) => {
                // A program that has closed its input does not want it.
                let _ = stdin.send(bytes);
            }
            (Request::StdinEnd, Some(program)) => program.stdin = None,
            (Request::Signal(number), Some(program)) => program.signal(number),
            // One that has ended needs neither.
            (Request::Stdin(_) | Request::StdinEnd | Request::Signal(_), _) => {}
        }
    }
    Ok(())
}

/// The programs that have not ended.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashMap<ProgramId, Program>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<ProgramId, Program>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way back; frames of several threads go whole.
#[derive(Clone)]
struct Host(Arc<Mutex<File>>);

impl Host {
    fn tell(&self, program: ProgramId, event: &Event) -> Result<(), WireError> {
        event.write(program, &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A program that runs.
struct Program {
    process: OwnedFd,
    stdin: Option<Sender<Vec<u8>>>,
}

impl Program {
    /// Starts it; it leaves `running`, which the caller has locked, at its end.
    fn start(start: &Start, id: ProgramId, host: &Host, running: &Running) -> Result<Self, Box<dyn Error>> {
        let text = |bytes: &Vec<u8>| OsStr::from_bytes(bytes).to_owned();
        let (path, arguments) = start.argv.split_first().ok_or("no program named")?;
        let mut child = Command::new(text(path))
            .args(arguments.iter().map(text))
            .env_clear()
            .envs(start.env.iter().map(|(name, value)| (text(name), text(value))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| reason(&error, &text(path)))?;
        let process = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        host.tell(id, &Event::Started(child.id()))?;
        let (sender, receiver) = channel();
        if let Some(stdin) = child.stdin.take() {
            thread::spawn(move || feed(&receiver, stdin));
        }
        if let Some(stdout) = child.stdout.take() {
            let host = host.clone();
            thread::spawn(move || drain(stdout, id, &host, Event::Stdout, &Event::StdoutEnd));
        }
        if let Some(stderr) = child.stderr.take() {
            let host = host.clone();
            thread::spawn(move || drain(stderr, id, &host, Event::Stderr, &Event::StderrEnd));
        }
        let (host, running) = (host.clone(), running.clone());
        thread::spawn(move || {
            await_end(child, id, &host);
            running.lock().remove(&id);
        });
        Ok(Self { process, stdin: Some(sender) })
    }

    fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // One that has ended needs no signal.
            let _ = rustix::process::pidfd_send_signal(&self.process, signal);
        }
    }
}

/// The kernel says of a program and of the loader that it asks for the same: not found.
fn reason(error: &io::Error, path: &OsStr) -> String {
    let hint = if error.kind() == ErrorKind::NotFound && Path::new(path).exists() {
        "; the file is there, so it must be its loader: is it static?"
    } else {
        ""
    };
    format!("{error}{hint}")
}

/// Passes input on until it ends, or the program reads no more.
fn feed(from: &Receiver<Vec<u8>>, mut stdin: ChildStdin) {
    for bytes in from {
        if stdin.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Passes output on until its end. A host that does not listen any more ends this whole process soon.
fn drain(mut from: impl Read, id: ProgramId, host: &Host, some: fn(Vec<u8>) -> Event, end: &Event) {
    let mut buffer = vec![0; MAX_CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if host.tell(id, &some(buffer[..count].to_vec())).is_err() {
            return;
        }
    }
    let _ = host.tell(id, end);
}

fn await_end(mut child: Child, id: ProgramId, host: &Host) {
    let exit = match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        },
        Err(error) => {
            let _ = host.tell(id, &Event::Failed(format!("its end was missed: {error}")));
            return;
        }
    };
    let _ = host.tell(id, &Event::Exited(exit));
}
