//! The host's end of the port: one thread takes what the guest tells, and whoever waits looks at what it
//! makes of it.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire::{Event, Exit, ProgramId, Request, VERSION, WireError};

/// How long a guest may take to take a request in.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// A connection to the server in a guest.
#[derive(Debug)]
pub(super) struct Link {
    requests: Mutex<UnixStream>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is known of the guest.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) is_up: bool,
    /// Why nothing more will come, if nothing will.
    gone: Option<String>,
    last_id: ProgramId,
    pub(super) programs: BTreeMap<ProgramId, Progress>,
}

/// What is known of a program.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) argv: Vec<String>,
    pub(super) pid: Option<u32>,
    pub(super) failed: Option<String>,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    pub(super) exit: Option<Exit>,
    /// Nobody will ask for it any more.
    pub(super) forgotten: bool,
}

/// What a program has written and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Stream {
    bytes: Vec<u8>,
    /// Where to go on looking for the end of a line.
    searched: usize,
    pub(super) ended: bool,
}

impl Stream {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// All that there is.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.bytes)
    }

    /// The next line with its end, or what is left of one when the stream has ended.
    pub(super) fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        match end {
            Some(end) => {
                let rest = self.bytes.split_off(self.searched + end + 1);
                self.searched = 0;
                Some(std::mem::replace(&mut self.bytes, rest))
            }
            None if self.ended && !self.bytes.is_empty() => Some(self.take()),
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }
}

/// Why a wait was in vain.
#[derive(Debug)]
pub(super) enum InVain {
    Gone,
    TimedOut,
}

impl Link {
    pub(super) fn start(stream: UnixStream) -> io::Result<Self> {
        // A paused guest takes nothing in; whoever sends it more than the sockets hold must not hang.
        stream.set_write_timeout(Some(SEND_LIMIT))?;
        let shared = Arc::new(Shared::default());
        let mut events = stream.try_clone()?;
        let listener = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("vmlab-link".into()).spawn(move || {
            let end = loop {
                match Event::read(&mut events) {
                    Ok(Some((id, event))) => {
                        if let Err(why) = listener.lock().take_in(id, event) {
                            break why;
                        }
                        listener.changed.notify_all();
                    }
                    Ok(None) => break "the connection has ended".to_owned(),
                    Err(error) => break error.to_string(),
                }
            };
            listener.lock().gone = Some(end);
            listener.changed.notify_all();
            let _ = events.shutdown(Shutdown::Both);
        })?;
        Ok(Self { requests: Mutex::new(stream), shared, reader: Some(reader) })
    }

    /// What is known now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Why nothing more will come, if nothing will.
    pub(super) fn gone(&self) -> Option<String> {
        self.state().gone.clone()
    }

    /// Waits until `look` sees what it looks for.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, InVain> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            if state.gone.is_some() {
                return Err(InVain::Gone);
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(InVain::TimedOut);
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A number for a new program, which is known from now on.
    pub(super) fn register(&self, argv: Vec<String>) -> ProgramId {
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        state.programs.insert(id, Progress { argv, ..Progress::default() });
        id
    }

    /// Nobody will ask for it any more.
    pub(super) fn forget(&self, id: ProgramId) {
        let mut state = self.state();
        if let Some(program) = state.programs.get_mut(&id) {
            program.forgotten = true;
        }
        state.tidy(id);
    }

    pub(super) fn send(&self, id: ProgramId, request: &Request) -> Result<(), WireError> {
        request.write(id, &mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let stream = self.requests.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // It has nothing to tell.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes an event in, or says why it cannot be.
    fn take_in(&mut self, id: ProgramId, event: Event) -> Result<(), String> {
        if let Event::Hello(version) = event {
            if version != VERSION {
                return Err(format!("the guest speaks version {version} of the protocol, not {VERSION}"));
            }
            self.is_up = true;
            return Ok(());
        }
        let Some(program) = self.programs.get_mut(&id) else {
            return Err(format!("the guest tells of a program {id} that nobody started"));
        };
        let discard = program.forgotten;
        match event {
            Event::Started(pid) => program.pid = Some(pid),
            Event::Failed(why) => program.failed = Some(why),
            Event::Stdout(bytes) if !discard => program.stdout.add(&bytes),
            Event::Stderr(bytes) if !discard => program.stderr.add(&bytes),
            Event::StdoutEnd => program.stdout.ended = true,
            Event::StderrEnd => program.stderr.ended = true,
            Event::Exited(exit) => program.exit = Some(exit),
            Event::Stdout(_) | Event::Stderr(_) | Event::Hello(_) => {}
        }
        self.tidy(id);
        Ok(())
    }

    /// Drops what is known of a program of which nothing more will come, and for which nobody will ask.
    fn tidy(&mut self, id: ProgramId) {
        let over = self.programs.get(&id).is_some_and(|program| {
            program.forgotten
                && (program.failed.is_some() || program.exit.is_some() && program.has_all_output())
        });
        if over {
            self.programs.remove(&id);
        }
    }
}

impl Progress {
    pub(super) fn has_all_output(&self) -> bool {
        self.stdout.ended && self.stderr.ended
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::start(ours).unwrap(), theirs)
    }

    #[test]
    fn lines_are_taken_one_by_one_however_they_come() {
        let mut stream = Stream::default();
        stream.add(b"on");
        assert_eq!(stream.take_line(), None);
        stream.add(b"e\n\ntw");
        assert_eq!(stream.take_line().as_deref(), Some(&b"one\n"[..]));
        assert_eq!(stream.take_line().as_deref(), Some(&b"\n"[..]));
        assert_eq!(stream.take_line(), None);
        stream.ended = true;
        assert_eq!(stream.take_line().as_deref(), Some(&b"tw"[..]));
        assert_eq!(stream.take_line(), None);
    }

    #[test]
    fn waiting_ends_with_the_event_the_limit_or_the_guest() {
        let (link, mut guest) = pair();
        assert!(matches!(link.wait(SECOND / 50, |state| state.is_up.then_some(())), Err(InVain::TimedOut)));
        Event::Hello(VERSION).write(0, &mut guest).unwrap();
        link.wait(SECOND, |state| state.is_up.then_some(())).unwrap();
        drop(guest);
        assert!(matches!(link.wait(SECOND, |_| None::<()>), Err(InVain::Gone)));
    }

    #[test]
    fn garbage_and_strangers_end_the_connection() {
        for bytes in
            [&b"\xff\xff\xff\xff\xff"[..], b"\x05\0\0\0\x42\x01\0\0\0", b"\x09\0\0\0\x40\0\0\0\0\x63\0\0\0"]
        {
            let (link, mut guest) = pair();
            guest.write_all(bytes).unwrap();
            assert!(matches!(link.wait(SECOND, |_| None::<()>), Err(InVain::Gone)), "{bytes:?}");
            assert!(link.gone().is_some());
        }
    }

    #[test]
    fn forgotten_programs_leave_nothing_behind() {
        let (link, mut guest) = pair();
        let id = link.register(vec!["a".into()]);
        for event in [Event::Started(9), Event::Stdout(b"x".to_vec()), Event::StdoutEnd, Event::StderrEnd] {
            event.write(id, &mut guest).unwrap();
        }
        link.wait(SECOND, |state| state.programs[&id].has_all_output().then_some(())).unwrap();
        link.forget(id);
        assert_eq!(link.state().programs.len(), 1);
        Event::Exited(Exit::Code(0)).write(id, &mut guest).unwrap();
        link.wait(SECOND, |state| state.programs.is_empty().then_some(())).unwrap();
    }
}
