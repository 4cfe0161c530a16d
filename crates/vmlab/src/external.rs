//! Programs of this machine, run to their end.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How much of what a program says goes into an error, in bytes.
const TAIL: usize = 2000;

/// Runs it to its end; what it wrote, if its exit status is 0.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    tracing::debug!(?command);
    let output = command.stdin(Stdio::null()).output();
    let output = output
        .map_err(|error| Error::NotRun { program: command.get_program().display().to_string(), error })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Failed { command: command_line(command), status: output.status, text: tail(text) })
}

/// The same, for its standard output as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// The end of a text that may be long.
pub(crate) fn tail(text: &[u8]) -> String {
    let start = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&text[start..]).trim().to_owned()
}

/// Where a program is: in `PATH`, or where administrators have theirs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_ran_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit status: 3") && error.contains("why"),
            "{error}"
        );
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here") && error.contains("setup"), "{error}");
    }
}
