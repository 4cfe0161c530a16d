//! `crosslock torture` and `crosslock pingpong`, as a user runs them.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use support::{Name, crosslock, json};

const FAMILY: [&str; 5] = ["tas", "ticket", "mcs", "qspinlock", "pvqspinlock"];

/// Those that survive their owners.
const ROBUST: [&str; 2] = ["robust", "pthread_mutex_robust"];

#[test]
fn every_lock_excludes_threads_and_processes() {
    for lock in FAMILY.iter().chain(&ROBUST) {
        for scope in ["threads", "processes"] {
            for workers in ["1", "2", "4"] {
                let report = json(&[
                    "torture",
                    "--lock",
                    lock,
                    "--scope",
                    scope,
                    "--workers",
                    workers,
                    "--duration",
                    "200ms",
                ]);
                assert_eq!(report["verdict"], "ok", "{report}");
                assert_eq!(
                    (&report["violations"], &report["lost_updates"]),
                    (&0.into(), &0.into()),
                    "{report}"
                );
                assert!(report["acquisitions"].as_u64() > Some(0), "{report}");
            }
        }
    }
}

#[test]
fn a_lock_that_does_not_lock_is_caught() {
    for scope in ["threads", "processes"] {
        let args = ["torture", "--lock", "busted", "--scope", scope, "--duration", "1s"];
        crosslock(&args).assert().code(1).stdout(contains("FAILED: this lock does not exclude"));
    }
}

fn assert_survived(report: &Value) {
    assert_eq!(report["verdict"], "ok", "{report}");
    for count in ["violations", "lost_updates", "leaked_slots", "stuck"] {
        assert_eq!(report[count], 0, "{count}: {report}");
    }
    assert_eq!(report["is_free"], true, "{report}");
    assert!(report["acquisitions"].as_u64() > Some(0), "{report}");
    assert!(report["recoveries"].as_u64() <= report["kills"].as_u64(), "{report}");
}

const KILLING: [&str; 7] = ["torture", "--scope", "processes", "--kill", "100/s", "--duration", "2s"];

#[test]
fn killed_workers_are_survived_and_compared_with_pthread() {
    let report = json(&[&KILLING[..], &["--workers", "8", "--cs", "1000"]].concat());
    assert_survived(&report);
    assert_eq!((&report["lock"], &report["scope"]), (&"robust".into(), &"processes".into()), "{report}");
    for figures in [&report, &report["pthread"]] {
        assert!(figures["kills"].as_u64() > Some(50), "{report}");
        assert_eq!((&figures["violations"], &figures["lost_updates"]), (&0.into(), &0.into()), "{report}");
    }
    for recovery in ["recovery_ns", "pthread_recovery_ns"] {
        assert!(report[recovery]["count"].as_u64() > Some(0), "{recovery}: {report}");
        let [p50, p99, max] = ["p50", "p99", "max"].map(|figure| report[recovery][figure].as_u64());
        assert!(Some(0) < p50 && p50 <= p99 && p99 <= max, "{recovery}: {report}");
    }
    assert!(report["recovery_ratio"]["p50"].is_f64(), "{report}");
    assert!(report["events"]["lock_slowpath"].is_u64(), "{report}");
}

#[test]
fn a_killed_worker_that_is_alone_is_survived_by_its_replacement() {
    for lock in ROBUST {
        let report = json(&[&KILLING[..], &["--lock", lock, "--workers", "1"]].concat());
        assert_survived(&report);
        assert!(report["kills"].as_u64() > Some(50), "{report}");
    }
}

#[test]
fn a_lock_that_hides_deaths_is_caught() {
    let args = [&KILLING[..], &["--lock", "forgetful", "--workers", "4", "--cs", "1000"]].concat();
    crosslock(&args).assert().code(1).stdout(contains("FAILED: this lock does not exclude, or hides deaths"));
}

#[test]
fn the_report_has_the_promised_keys() {
    let report = json(&["torture", "--duration", "100ms"]);
    let mut keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let promised = [
        "acquire_ns",
        "acquisitions",
        "cpu_s",
        "duration_s",
        "events",
        "jain",
        "lock",
        "lost_updates",
        "scope",
        "throughput_ops_per_s",
        "verdict",
        "violations",
        "workers",
    ];
    assert_eq!(keys, promised);
    for percentile in ["p50", "p99", "p999", "max"] {
        assert!(report["acquire_ns"][percentile].is_u64(), "{report}");
    }
    assert!(report["events"]["pv_kick_unlock"].is_u64(), "{report}");
}

#[test]
fn who_joins_works_under_the_same_lock() {
    let name = Name::new("join");
    let first = Command::new(env!("CARGO_BIN_EXE_crosslock"))
        .args(["torture", "--segment", &name.0, "--duration", "3s", "--workers", "2", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(|| name.path().exists());
    let join = ["torture", "--segment", &name.0, "--join", "--duration", "500ms"];
    let joined =
        retry(|| crosslock(&join).args(["--workers", "2", "--scope", "processes", "--json"]).output());
    let joined: Value = serde_json::from_slice(&joined).unwrap();
    crosslock(&join).args(["--lock", "ticket"]).assert().code(2).stderr(contains("ticket"));
    let first: Value = serde_json::from_slice(&first.wait_with_output().unwrap().stdout).unwrap();
    for report in [&first, &joined] {
        assert_eq!(report["verdict"], "ok", "{report}");
    }
    assert!(!name.path().exists(), "the segment is left over");
}

#[test]
fn an_interrupt_ends_in_order() {
    let modes: [&[&str]; 3] =
        [&["--scope", "threads"], &["--scope", "processes"], &["--scope", "processes", "--kill", "50/s"]];
    for (number, mode) in modes.into_iter().enumerate() {
        let name = Name::new(&format!("interrupt-{number}"));
        let child = Command::new(env!("CARGO_BIN_EXE_crosslock"))
            .args(["torture", "--segment", &name.0, "--duration", "60s", "--json"])
            .args(mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(|| name.path().exists());
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        interrupt(child.id());
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["verdict"], "ok", "{report}");
        assert!(!name.path().exists(), "the segment is left over");
    }
}

#[test]
fn what_a_killed_torture_leaves_is_stale_and_cleared() {
    for (number, mode) in [&[][..], &["--kill", "50/s"]].into_iter().enumerate() {
        let name = Name::new(&format!("killed-{number}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_crosslock"))
            .args(["torture", "--segment", &name.0, "--duration", "60s", "--scope", "processes"])
            .args(mode)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| name.path().exists());
        let line = format!("{} ", name.0);
        crosslock(&["ls"]).assert().success().stdout(contains(&line).and(contains("in use")));
        std::thread::sleep(Duration::from_millis(200));
        child.kill().unwrap();
        child.wait().unwrap();
        // The workers die with their parent, each in its own time.
        wait_until(|| {
            let listed = crosslock(&["ls"]).output().unwrap().stdout;
            let listed = String::from_utf8(listed).unwrap();
            listed.lines().any(|listed| listed.starts_with(&line) && listed.contains("stale"))
        });
        crosslock(&["rm", "--stale"]).assert().success().stdout(contains(&name.0));
        assert!(!name.path().exists());
    }
}

#[test]
fn ping_pong_keeps_the_order() {
    for lock in FAMILY {
        for scope in ["threads", "processes"] {
            let report = json(&["pingpong", "--lock", lock, "--scope", scope, "--rounds", "500"]);
            assert_eq!((&report["verdict"], &report["rounds"]), (&"ok".into(), &500.into()), "{report}");
        }
    }
    let busted = ["pingpong", "--lock", "busted", "--rounds", "100000"];
    crosslock(&busted).assert().code(1).stdout(contains("FAILED"));
}

#[test]
fn selection_says_what_it_chose() {
    let auto = ["torture", "--lock", "auto", "--duration", "50ms"];
    crosslock(&auto)
        .assert()
        .success()
        .stderr(contains("PV spinlocks enabled"))
        .stdout(contains("pvqspinlock"));
    let nopvspin = ["torture", "--lock", "auto", "--nopvspin", "--duration", "50ms"];
    crosslock(&nopvspin).assert().success().stderr(contains("nopvspin"));
    let alone = ["torture", "--lock", "auto", "--workers", "1", "--duration", "50ms"];
    crosslock(&alone).assert().success().stderr(contains("a single CPU"));
}

#[test]
fn wrong_use_is_told_with_status_2() {
    let wrong: [(&[&str], &str); 12] = [
        (&["torture", "--lock", "mutex"], "pvqspinlock"),
        (&["torture", "--workers", "0"], "0"),
        (&["torture", "--duration", "5"], "unit"),
        (&["torture", "--join"], "--segment"),
        (&["torture", "--kill", "100/s"], "--scope processes"),
        (&[&KILLING[..], &["--lock", "ticket"]].concat(), "ticket stays taken"),
        (&["torture", "--kill", "100"], "kills per second"),
        (&["torture", "--kill", "0/s"], "kills per second"),
        (&["torture", "--kill", "2000/s"], "at most 1000/s"),
        (&["torture", "--kill", "1/s", "--segment", "s", "--join"], "--join"),
        (&["torture", "--segment", "a/b"], "a/b"),
        (&["torture", "--segment", "crosslock-test-there-is-none", "--join"], "there is no segment"),
    ];
    for (args, said) in wrong {
        crosslock(args).assert().code(2).stderr(contains(said));
    }
}

fn interrupt(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The segment has its name before it has its lock.
fn retry(command: impl Fn() -> std::io::Result<std::process::Output>) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let output = command().unwrap();
        if output.status.success() || start.elapsed() > Duration::from_secs(30) {
            return output.stdout;
        }
    }
}
