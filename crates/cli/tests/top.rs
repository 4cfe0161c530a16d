//! `crosslock top`: as text, as JSON, and on a terminal.

#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crosslock::Segment;
use crosslock::crosslock_core::primitive::{AtomicU32, Ordering};
use predicates::str::contains;
use scene::{Holder, OnTerminal, killed_inside, until_owned, until_waiters};
use serde_json::Value;
use support::{Name, crosslock, json};

/// Two who take and give up the mutex `busy` until this is dropped.
struct Busy(Arc<AtomicU32>);

impl Busy {
    fn start(segment: &Segment) -> Self {
        let is_over = Arc::new(AtomicU32::new(0));
        for name in ["one", "two"] {
            let (segment, is_over) = (segment.clone(), Arc::clone(&is_over));
            let work = move || {
                let mutex = segment.mutex("busy", 0u64).unwrap();
                while is_over.load(Ordering::Relaxed) == 0 {
                    mutex.lock().unwrap().update(|n| *n += 1);
                }
            };
            std::thread::Builder::new().name(name.into()).spawn(work).unwrap();
        }
        Self(is_over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[test]
fn one_interval_as_text_and_as_json() {
    let name = Name::new("top");
    let segment = Segment::create(&name.0).unwrap();
    let _held = Holder::of_mutex("holder", &segment, "account");
    until_owned(&segment, "account");
    let _waits = Holder::of_mutex("waiter", &segment, "account");
    until_waiters(&segment, "account", 1);
    let _busy = Busy::start(&segment);
    killed_inside(&name.0, |segment| core::mem::forget(segment.mutex("left", 0u64).unwrap().lock()));

    let report = json(&["top", &name.0, "--once", "--interval", "1s", "--long", "10ms"]);
    let lock = |name| report["locks"].as_array().unwrap().iter().find(|lock| lock["name"] == name).unwrap();
    let pid = std::process::id();
    let account = lock("account");
    assert_eq!((&account["owner"]["pid"], &account["owner"]["name"]), (&pid.into(), &"holder".into()));
    assert_eq!((&account["owner"]["alive"], &account["long"]), (&true.into(), &true.into()));
    let waiting = account["waiting"].as_f64().unwrap();
    assert!((0.5..1.5).contains(&waiting), "one waits all the time: {account}");
    assert!(lock("busy")["acquired_per_s"].as_f64().unwrap() > 1.0, "{report}");
    assert_eq!(lock("left")["state"], "owner dead");
    assert_eq!(report["participants"]["dead"], 1);
    assert_eq!(report["locks"][0]["name"], "account", "most waited for");

    let text = crosslock(&["top", &name.0, "--once", "--plain", "--interval", "100ms"]).assert().success();
    let text = text.stdout(contains(format!("{pid} holder"))).stdout(contains("DEAD"));
    text.stdout(contains("LOCK")).stdout(contains("DEAD 1; locks 3"));
}

#[test]
fn it_disturbs_nothing_and_says_when_the_segment_is_gone() {
    let name = Name::new("top-gone");
    let segment = Segment::create(&name.0).unwrap();
    core::mem::forget(segment.mutex("n", 0u64).unwrap().lock().unwrap());
    let before = fs::read(name.path()).unwrap();
    let top = Command::new(env!("CARGO_BIN_EXE_crosslock"))
        .args(["top", &name.0, "--json", "--interval", "20ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(fs::read(name.path()).unwrap() == before, "top has changed the segment");
    Segment::remove(&name.0).unwrap();
    let output = top.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was removed"));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.lines().count() > 0, "{lines}");
    lines.lines().for_each(|line| assert_eq!(serde_json::from_str::<Value>(line).unwrap()["held"], 1));
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let name = Name::new("top-none");
    crosslock(&["top", &name.0]).assert().code(2).stderr(contains("there is no segment"));
    for interval in ["0s", "1ms", "1", "-1s", ""] {
        crosslock(&["top", &name.0, "--interval", interval]).assert().code(2);
    }
    crosslock(&["top", &name.0, "--plain", "--json"])
        .assert()
        .code(2)
        .stderr(contains("cannot be used with"));
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let name = Name::new("top-screen");
    let segment = Segment::create(&name.0).unwrap();
    let _held = Holder::of_mutex("holder", &segment, "account");
    until_owned(&segment, "account");
    let ends: [fn(&mut OnTerminal); 3] = [
        |top| top.press("s j\x1b[6~ q"),
        |top| top.press("\x03"),
        |top| rustix::process::kill_process(top.pid(), rustix::process::Signal::TERM).unwrap(),
    ];
    for end in ends {
        let mut top = OnTerminal::start(&["top", &name.0, "--interval", "50ms"]);
        top.until("holder");
        end(&mut top);
        let (status, written) = top.end();
        assert_eq!(status.code(), Some(0), "{written}");
        let [enter, leave, show] =
            ["\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"].map(|said| written.rfind(said));
        assert!(enter.is_some() && enter < leave && show.is_some(), "{written:?}");
    }
}
