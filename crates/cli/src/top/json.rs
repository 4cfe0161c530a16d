//! One JSON object for each interval.

use core::time::Duration;

use crosslock::ObjectInfo;
use serde_json::{Value, json};

use super::sample::{Report, Row};
use crate::segments::json::{lock, ns};
use crate::segments::spin::State;

pub(super) fn report(name: &str, report: &Report, long: Duration) -> Value {
    let total = report.total().unwrap_or_default();
    json!({
        "name": name,
        "interval_s": report.interval.map(|interval| interval.as_secs_f64()),
        "participants": { "alive": report.alive, "dead": report.dead },
        "held": report.held(),
        "waiters": report.waiters(),
        "acquired_per_s": total.acquired_per_s,
        "contended_per_s": total.contended_per_s,
        "contended_percent": total.contended_percent,
        "waiting": total.waiting,
        "locks": report.locks.iter().map(|one| row(one, long)).collect::<Vec<_>>(),
        "spin_locks": report.others.iter().filter_map(spin_lock).collect::<Vec<_>>(),
    })
}

fn row(row: &Row, long: Duration) -> Value {
    let rates = row.rates.unwrap_or_default();
    let mut value = lock(&row.lock, long);
    value["name"] = row.lock.object.name.as_str().into();
    value["kind"] = row.lock.object.ty.kind.to_string().into();
    value["held_ns"] = row.held.map(ns).into();
    value["long"] = row.held.is_some_and(|held| held >= long).into();
    value["longest_wait_ns"] = row.longest_wait().map(ns).into();
    value["acquired_per_s"] = rates.acquired_per_s.into();
    value["contended_per_s"] = rates.contended_per_s.into();
    value["contended_percent"] = rates.contended_percent.into();
    value["waiting"] = rates.waiting.into();
    value["mean_wait_ns"] = rates.mean_wait.map(ns).into();
    value
}

fn spin_lock(object: &ObjectInfo) -> Option<Value> {
    let state = State::of(object)?.to_string();
    Some(
        json!({ "name": object.name, "kind": object.ty.kind.to_string(), "word": object.word, "state": state }),
    )
}
