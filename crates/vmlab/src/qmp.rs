//! A client of QEMU's monitor protocol, one command at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest line that is taken from QEMU, in bytes.
const MAX_LINE: usize = 16 << 20;

/// A connection to the monitor of one QEMU. All that is said goes to a log.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    log: File,
    unread: Vec<u8>,
    events: VecDeque<Value>,
    last_id: u64,
}

/// Why the monitor did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The connection broke.
    #[error("the monitor's connection broke: {0}")]
    Io(#[from] io::Error),
    /// QEMU has closed the connection.
    #[error("the monitor has hung up")]
    Closed,
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// What came is not of the protocol.
    #[error("the monitor said {0:?}, which is not of its protocol")]
    Nonsense(String),
    /// QEMU refused the command.
    #[error("refused: {class}: {description}")]
    Refused {
        /// QEMU's class of the error.
        class: String,
        /// QEMU's words.
        description: String,
    },
}

impl Qmp {
    /// Waits for the greeting, and makes the monitor ready for commands.
    ///
    /// # Errors
    /// QEMU is gone, or does not greet and answer in time.
    pub fn connect(stream: UnixStream, log: File, limit: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self { stream, log, unread: Vec::new(), events: VecDeque::new(), last_id: 0 };
        let deadline = Deadline::after(limit);
        match qmp.message(deadline)? {
            Message::Greeting => {}
            other => return Err(QmpError::Nonsense(format!("{other:?} for a greeting"))),
        }
        qmp.execute("qmp_capabilities", json!({}), deadline.left())?;
        Ok(qmp)
    }

    /// Has a command carried out, and gives what it returns. Events that come meanwhile are
    /// [kept](Self::take_events).
    ///
    /// # Errors
    /// QEMU is gone, refuses it, or does not answer within `limit`.
    pub fn execute(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value, QmpError> {
        let deadline = Deadline::after(limit);
        self.last_id += 1;
        let id = self.last_id;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.note("> ", line.as_bytes());
        self.stream.write_all(line.as_bytes()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => QmpError::Closed,
            _ => QmpError::Io(error),
        })?;
        loop {
            match self.message(deadline)? {
                Message::Return { id: Some(of), value } if of == id => return Ok(value),
                Message::Error { id: of, class, description } if of.is_none_or(|of| of == id) => {
                    return Err(QmpError::Refused { class, description });
                }
                Message::Event(event) => self.events.push_back(event),
                // Late answers, to commands that were not waited for.
                Message::Return { .. } | Message::Error { .. } | Message::Greeting => {}
            }
        }
    }

    /// The events that have come while commands were carried out, oldest first. Each is given once.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    fn message(&mut self, deadline: Deadline) -> Result<Message, QmpError> {
        let line = loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                break self.unread.drain(..=end).collect::<Vec<_>>();
            }
            if self.unread.len() > MAX_LINE {
                return Err(QmpError::Nonsense(format!("{} bytes without a line's end", self.unread.len())));
            }
            self.read_some(deadline)?;
        };
        self.note("< ", &line);
        parse(&line)
    }

    fn read_some(&mut self, deadline: Deadline) -> Result<(), QmpError> {
        let mut buffer = [0; 4096];
        let left = deadline.left();
        if left.is_zero() {
            return Err(QmpError::TimedOut(deadline.limit));
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(QmpError::Closed),
            Ok(count) => {
                self.unread.extend(&buffer[..count]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(QmpError::TimedOut(deadline.limit)),
                ErrorKind::ConnectionReset => Err(QmpError::Closed),
                ErrorKind::Interrupted => Ok(()),
                _ => Err(error.into()),
            },
        }
    }

    /// A log that cannot be written is no reason to fail.
    fn note(&mut self, direction: &str, line: &[u8]) {
        let _ = self.log.write_all(direction.as_bytes());
        let _ = self.log.write_all(line);
    }
}

#[derive(Clone, Copy)]
struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }
}

#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return { id: Option<u64>, value: Value },
    Error { id: Option<u64>, class: String, description: String },
    Event(Value),
}

fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let nonsense = || QmpError::Nonsense(crate::external::tail(line));
    let mut value: Value = serde_json::from_slice(line).map_err(|_| nonsense())?;
    let message = value.as_object_mut().ok_or_else(nonsense)?;
    let id = message.get("id").and_then(Value::as_u64);
    if let Some(value) = message.remove("return") {
        return Ok(Message::Return { id, value });
    }
    if let Some(error) = message.get("error") {
        let text = |key| error.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(nonsense);
        return Ok(Message::Error { id, class: text("class")?, description: text("desc")? });
    }
    if message.get("event").is_some_and(Value::is_string) {
        return Ok(Message::Event(value));
    }
    if message.get("QMP").is_some_and(Value::is_object) {
        return Ok(Message::Greeting);
    }
    Err(nonsense())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
    const READY: &str = "{\"return\": {}, \"id\": 1}\r\n";

    /// A client whose QEMU says `text` and then nothing more.
    fn told(text: &str) -> (Result<Qmp, QmpError>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        (Qmp::connect(ours, tempfile::tempfile().unwrap(), SECOND / 20), theirs)
    }

    #[test]
    fn answers_are_told_from_events_and_late_answers() {
        let event = json!({ "event": "STOP", "timestamp": {} });
        let rest = format!(
            "{event}\n{{\"return\": 5, \"id\": 1}}\n{{\"return\": {{\"running\": true}}, \"id\": 2}}\n"
        );
        let (qmp, _theirs) = told(&[GREETING, READY, &rest].concat());
        let mut qmp = qmp.unwrap();
        assert_eq!(qmp.execute("query-status", json!({}), SECOND).unwrap(), json!({ "running": true }));
        assert_eq!(qmp.take_events(), [event]);
        assert!(qmp.take_events().is_empty());
    }

    #[test]
    fn refusals_silence_and_ends_are_told_apart() {
        let refusal = r#"{"error": {"class": "CommandNotFound", "desc": "no such"}, "id": 2}"#;
        let (qmp, theirs) = told(&format!("{GREETING}{READY}{refusal}\n"));
        let mut qmp = qmp.unwrap();
        let error = qmp.execute("nonsense", json!({}), SECOND).unwrap_err();
        assert!(matches!(&error, QmpError::Refused { class, .. } if class == "CommandNotFound"), "{error}");
        let error = qmp.execute("query-status", json!({}), SECOND / 20).unwrap_err();
        assert!(matches!(error, QmpError::TimedOut(_)), "{error}");
        drop(theirs);
        let error = qmp.execute("query-status", json!({}), SECOND).unwrap_err();
        assert!(matches!(error, QmpError::Closed), "{error}");
    }

    #[test]
    fn a_stranger_is_no_monitor() {
        for text in ["hello\n", "{}\n", "[]\n", "{\"event\": 3}\n", "{\"error\": 1}\n", "\n"] {
            let (qmp, _theirs) = told(text);
            assert!(matches!(qmp, Err(QmpError::Nonsense(_))), "{text:?}: {qmp:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
