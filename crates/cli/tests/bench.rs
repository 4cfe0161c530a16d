//! `crosslock bench`, as a user runs it.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use support::{crosslock, json};

/// Every figure of a contestant, whichever they are.
fn figures(contestant: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = contestant.as_object().unwrap().iter();
    fields.map(|(name, value)| (&**name, value)).filter(|(name, _)| *name != "lock")
}

fn locks(point: &Value) -> Vec<&str> {
    let contestants = point["contestants"].as_array().unwrap();
    contestants.iter().map(|contestant| contestant["lock"].as_str().unwrap()).collect()
}

#[test]
fn every_workload_gives_every_figure_of_every_lock() {
    let wanted = ["qspinlock", "pvqspinlock", "std"];
    let report = json(&[
        "bench",
        "--locks",
        "floor-cas-store,floor-cas-cas,std,qspinlock,pvqspinlock",
        "--threads",
        "1,2",
        "--rounds",
        "2",
        "--duration",
        "10ms",
    ]);
    assert_eq!((&report["rounds"], &report["interrupted"]), (&2.into(), &false.into()));
    for (key, known) in
        [("cpu", Value::is_string as fn(&_) -> _), ("cpus", Value::is_u64), ("kernel", Value::is_string)]
    {
        assert!(known(&report["machine"][key]), "{key} in {report}");
    }
    let workloads = report["workloads"].as_array().unwrap();
    let names: Vec<_> = workloads.iter().map(|workload| workload["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["W1", "W2", "W3", "W7"]);
    for workload in workloads {
        let points = workload["points"].as_array().unwrap();
        let uncontended = workload["workload"] == "W1";
        assert_eq!(points.len(), if workload["workload"] == "W7" { 8 } else { 2 });
        for point in points {
            assert_eq!(point["rounds"], 2);
            let floors: &[&str] = if uncontended { &["floor-cas-store", "floor-cas-cas"] } else { &[] };
            assert_eq!(locks(point), [floors, &wanted].concat());
            for contestant in point["contestants"].as_array().unwrap() {
                assert_eq!(figures(contestant).count(), if uncontended { 3 } else { 9 });
                for (name, figure) in figures(contestant) {
                    let [min, median, max] = ["min", "median", "max"].map(|key| &figure[key]);
                    let ordered = match (min.as_f64(), median.as_f64(), max.as_f64()) {
                        (Some(min), Some(median), Some(max)) => 0.0 <= min && min <= median && median <= max,
                        // Somebody may have got nothing in so short a time.
                        _ => ["max_by_min", "cpu_ns_per_op", "to_std"].contains(&name),
                    };
                    assert!(ordered, "{name} in {contestant}");
                }
            }
        }
    }
}

#[test]
fn every_lock_takes_part() {
    let report = json(&["bench", "--workload", "w2", "--threads", "2", "--rounds", "1", "--duration", "5ms"]);
    assert_eq!(locks(&report["workloads"][0]["points"][0]).len(), 16);
}

/// That somebody got the lock, if only after the time was over, as in so short a time may be.
fn assert_works(contestant: &Value) {
    assert!(contestant["acquire_max_ns"]["min"].as_f64().unwrap() > 0.0, "{contestant}");
}

#[test]
fn every_lock_that_can_be_shared_takes_part_among_processes() {
    let args = ["bench", "--scope", "processes", "--workload", "W2,W3,W7", "--threads", "2"];
    let report = json(&[&args[..], &["--rounds", "1", "--duration", "5ms"]].concat());
    let workloads = report["workloads"].as_array().unwrap();
    let points = workloads.iter().flat_map(|workload| workload["points"].as_array().unwrap());
    for point in points {
        assert_eq!((&point["scope"], &point["workers"]), (&"processes".into(), &2.into()));
        let family = ["tas", "ticket", "mcs", "qspinlock", "pvqspinlock", "robust", "robust-exchange"];
        let pthread = ["pthread_spin", "pthread_mutex", "pthread_mutex_robust"];
        assert_eq!(
            locks(point),
            [&family[..], &pthread, &["std (threads)", "parking_lot (threads)"]].concat()
        );
        for contestant in point["contestants"].as_array().unwrap() {
            assert_eq!(figures(contestant).count(), 9);
            assert_works(contestant);
        }
    }
}

#[test]
fn more_workers_than_cpus_are_no_trouble() {
    let args = ["bench", "--scope", "threads,processes", "--workload", "W2", "--threads", "40"];
    let locks = ["--locks", "robust,robust-exchange,pvqspinlock,std", "--rounds", "1", "--duration", "50ms"];
    let report = json(&[&args[..], &locks].concat());
    let points = report["workloads"][0]["points"].as_array().unwrap();
    let names: Vec<_> = points.iter().map(|point| point["point"].as_str().unwrap()).collect();
    assert_eq!(names, ["40 threads", "40 processes"]);
    for contestant in points.iter().flat_map(|point| point["contestants"].as_array().unwrap()) {
        assert_works(contestant);
    }
}

/// The first child of the process.
fn child_of(pid: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_worker_that_dies_is_told_of_at_once() {
    let args = ["bench", "--scope", "processes", "--workload", "W2", "--locks", "tas", "--duration", "1h"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosslock"));
    let child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let worker = loop {
        if let Some(worker) = child_of(child.id()) {
            break worker;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "there is no worker");
        std::thread::sleep(Duration::from_millis(10));
    };
    let worker = rustix::process::Pid::from_raw(worker).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(contains("a child process failed").eval(&String::from_utf8_lossy(&output.stderr)));
}

#[test]
fn one_lock_is_compared_with_the_best_of_the_others() {
    let args = ["bench", "--workload", "W1,W7", "--threads", "2", "--rounds", "2", "--duration", "50ms"];
    let report = json(&[&args[..], &["--locks", "robust,std,parking_lot,tas"]].concat());
    let versus = &report["versus"];
    assert_eq!(versus["lock"], "robust");
    let points = versus["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    for point in points {
        assert_eq!(
            (&point["workload"], &point["scope"], &point["workers"]),
            (&"W7".into(), &"threads".into(), &2.into())
        );
        assert!(["std", "parking_lot"].contains(&point["best"].as_str().unwrap()));
        for figure in ["throughput_to_best", "jain", "longest_wait_to_parking_lot"] {
            assert!(point[figure]["median"].as_f64().unwrap() > 0.0, "{figure} in {point}");
        }
        assert!(point["good"].is_boolean());
    }
    let alone = json(&[&args[..], &["--locks", "tas,mcs"]].concat());
    assert_eq!(alone["versus"], Value::Null);
}

#[test]
fn a_check_fails_where_the_lock_is_not_good() {
    // A fair lock that spins, among more threads than there are CPUs, is not as fast as any that sleeps.
    let args = ["bench", "--workload", "W2", "--threads", "16", "--duration", "50ms", "--check"];
    crosslock(
        &[&args[..], &["--versus", "ticket", "--locks", "ticket,std,parking_lot,pthread_mutex"]].concat(),
    )
    .assert()
    .code(1)
    .stdout(contains("ticket against the best of std, parking_lot, pthread_mutex").and(contains(" no ")));
}

#[test]
fn what_cannot_be_done_together_is_refused() {
    for (args, said) in [
        (&["--scope", "processes", "--locks", "robust,mcslock"][..], "mcslock cannot be shared"),
        (&["--scope", "processes", "--workload", "W1"], "W1 is for one thread"),
        (&["--scope", "machines"], "processes"),
        (&["--check", "--locks", "robust,std,pthread_mutex"], "parking_lot does not take part"),
        (&["--check", "--workload", "W1"], "W2, W3 and W7"),
        (&["--versus", "wishful"], "robust-exchange"),
        (&["--versus", "floor-cas-cas"], "does not exclude"),
    ] {
        crosslock(&[&["bench"], args].concat()).assert().code(2).stderr(contains(said));
    }
}

#[test]
fn a_person_sees_tables() {
    crosslock(&["bench", "--workload", "W3", "--locks", "tas,std", "--threads", "2", "--duration", "5ms"])
        .assert()
        .success()
        .stdout(contains("CPU").and(contains("W3")).and(contains("2 threads")).and(contains("throughput")));
}

#[test]
fn an_unknown_lock_is_refused_and_the_known_ones_are_named() {
    crosslock(&["bench", "--locks", "mcs,wishful"])
        .assert()
        .code(2)
        .stderr(contains("wishful").and(contains("pvqspinlock")).and(contains("parking_lot")));
}

/// Whether the process has a handler for SIGINT.
fn catches_ctrl_c(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let signal = rustix::process::Signal::INT.as_raw();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (signal - 1) != 0
}

#[test]
fn ctrl_c_ends_it_in_order_with_what_was_measured() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosslock"));
    command.args(["bench", "--workload", "W2", "--locks", "std", "--threads", "1,2", "--rounds", "1"]);
    let child = command.args(["--duration", "1h", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    // Not before there is a handler.
    let start = Instant::now();
    while !catches_ctrl_c(child.id()) {
        assert!(start.elapsed() < Duration::from_secs(30), "there is no handler");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["workloads"][0]["points"], Value::Array(Vec::new()));
}
