//! Participants as people know them: process, thread, name; and whether they live.

use crosslock::{Identity, Party};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// `pid 123 tid 125 (worker-2)`, or the slot where that was given to another since.
pub(crate) fn who(party: &Party) -> String {
    let Some(Identity { pid, tid, thread, domain, .. }) = &party.identity else {
        return party.name.to_string();
    };
    let name = if thread.is_empty() { String::new() } else { format!(" ({thread})") };
    let place = match domain {
        Some(domain) => format!(", of domain {domain}"),
        None if is_elsewhere(party) => ", of another pid namespace".into(),
        None => String::new(),
    };
    format!("pid {pid} tid {tid}{name}{place}")
}

/// [`who`], and whether it lives.
pub(crate) fn who_lives(party: &Party) -> String {
    format!("{}, {}", who(party), liveness(party))
}

/// `123 worker-2`: process, and name of the thread, or its number where it has none.
pub(crate) fn who_in_short(party: &Party) -> String {
    match &party.identity {
        Some(Identity { pid, tid, domain: Some(domain), .. }) => format!("{domain}:{pid}/{tid}"),
        Some(Identity { pid, tid, thread, .. }) if thread.is_empty() => format!("{pid}/{tid}"),
        Some(Identity { pid, thread, .. }) => format!("{pid} {thread}"),
        None => format!("slot {}", party.name.slot().index()),
    }
}

fn liveness(party: &Party) -> &'static str {
    if party.is_alive { "alive" } else { "dead" }
}

/// Whether it lives, but no process here has its number: so the number is one of another namespace. That there is such
/// a process would prove nothing.
pub(crate) fn is_elsewhere(party: &Party) -> bool {
    let identity = party.identity.as_ref().filter(|identity| identity.domain.is_none());
    let pid = identity.and_then(|identity| i32::try_from(identity.pid).ok());
    let pid = pid.filter(|&pid| party.is_alive && pid > 0).and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}
