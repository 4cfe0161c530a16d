//! The first process of a guest.
//!
//! As process 1 it [makes the machine ready](machine), starts itself again as `serve`, and reaps orphans for
//! ever; when the server ends, so does the machine. `serve` [runs programs](server) for the host. `put` and
//! `get` are programs like any other, for files.

mod file;
mod machine;
mod plan;
mod port;
mod server;

use std::error::Error;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, getpid};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["serve"] => server::serve(),
        ["put", path, mode] => file::put(path, mode),
        ["get", path] => file::get(path),
        _ if getpid() == Pid::INIT => Err(first_process()),
        _ => Err("usage: vmlab-init serve | put PATH MODE | get PATH; or as process 1".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmlab-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lives as long as the server; then the machine is switched off.
fn first_process() -> Box<dyn Error> {
    if let Err(error) = live() {
        eprintln!("vmlab-init: {error}");
    }
    machine::power_off()
}

fn live() -> Result<(), Box<dyn Error>> {
    machine::prepare()?;
    let server = Command::new("/proc/self/exe").arg("serve").spawn()?;
    let server = Pid::from_child(&server);
    // Whatever else ends here is an orphan.
    while rustix::process::wait(WaitOptions::empty())?.is_none_or(|(pid, _)| pid != server) {}
    Ok(())
}
