//! `crosslock stepkill`, as a user runs it.

mod support;

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use support::{crosslock, json};

fn row<'a>(report: &'a Value, scenario: &str) -> &'a Value {
    let rows = report["scenarios"].as_array().unwrap();
    rows.iter().find(|row| row["scenario"] == scenario).unwrap()
}

#[test]
fn whoever_is_killed_the_others_go_on() {
    // Strides such that each takes some seconds, also of a program that is not optimised.
    for (scenarios, stride) in [
        ("owner-alone,owner-with-second-contender,owner-with-head-asleep,owner-with-queue", "31"),
        ("release-with-sleeper,release-with-queue,detach", "31"),
        ("repairer,repairer-with-queue,registration,thread-exit,object-creation,segment-creation", "307"),
        ("write-lock,write-lock-with-queue,write-lock-repairer,read-lock,read-lock-with-writers", "101"),
        ("waiter-middle,waiter-last", "10007"),
    ] {
        let report = json(&["stepkill", "--scenario", scenarios, "--stride", stride]);
        assert_eq!(report["verdict"], "ok");
        for scenario in scenarios.split(',') {
            let row = row(&report, scenario);
            let [points, killed, missed] =
                ["kill_points", "killed", "missed"].map(|key| row[key].as_u64().unwrap());
            let stride = stride.parse::<u64>().unwrap();
            assert!(points > 0 && killed > 0 && killed + missed >= points / stride, "{row}");
            for wrong in ["stuck", "violations", "leaks"] {
                assert_eq!(row[wrong], 0, "{row}");
            }
        }
    }
}

#[test]
fn every_instruction_is_visited_and_deaths_inside_are_told_of() {
    let report = json(&["stepkill", "--scenario", "control-name-at-once"]);
    let row = row(&report, "control-name-at-once");
    let [points, killed, missed] = ["kill_points", "killed", "missed"].map(|key| row[key].as_u64().unwrap());
    assert_eq!(points, killed + missed);
    assert!(missed <= 1, "{row}");
    let recoveries = row["recoveries"].as_u64().unwrap();
    assert!(0 < recoveries && recoveries < killed, "not inside all the time: {row}");
}

#[test]
fn a_lock_that_is_named_one_instruction_late_is_caught() {
    let report = json(&["stepkill", "--scenario", "control-late-name"]);
    let row = row(&report, "control-late-name");
    assert!(row["stuck"].as_u64().unwrap() > 0, "{row}");
    assert!(!row["failures"].as_array().unwrap().is_empty(), "{row}");
}

#[test]
fn a_control_that_is_not_caught_is_a_failure() {
    // Its first instruction is long before it takes the lock.
    crosslock(&["stepkill", "--scenario", "control-late-name", "--at", "0"])
        .assert()
        .code(1)
        .stdout(contains("not caught"));
}

#[test]
fn one_point_can_be_looked_at() {
    for scenario in
        ["waiter-head", "waiter-last", "repairer-of-waiter", "write-lock-waiting", "read-lock-waiting"]
    {
        crosslock(&["stepkill", "--scenario", scenario, "--at", "asleep"])
            .assert()
            .success()
            .stdout(contains(scenario).and(contains("killed at asleep")).and(contains("OK")));
    }
    crosslock(&["stepkill", "--scenario", "owner-alone", "--at", "1000000"])
        .assert()
        .code(1)
        .stdout(contains("no victim was killed"));
}

#[test]
fn wrong_usage_is_refused() {
    for (args, said) in [
        (&["--scenario", "wishful"][..], "waiter-head"),
        (&["--at", "3"], "--scenario"),
        (&["--scenario", "owner-alone", "--at", "soon"], "asleep"),
        (&["--scenario", "owner-alone,detach", "--at", "3"], "not 2"),
        (&["--stride", "0"], "stride"),
        (&["--jobs", "0"], "jobs"),
    ] {
        crosslock(&["stepkill"]).args(args).assert().code(2).stderr(contains(said));
    }
}
