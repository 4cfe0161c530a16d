//! Who is best: one lock against the best of the others, point by point.

use std::fmt;

use comfy_table::Cell;
use serde::Serialize;

use super::figure::{ACQUIRE_MAX_NS, JAIN, OPS_PER_S, Shown, Unit};
use super::plan::Workload;
use super::report::{Measured, plain_table, right};
use super::roster::Competitor;
use crate::stats::{Spread, median, ratios};
use crate::torture::Scope;

/// Whose throughput is to be reached.
const BARS: [&str; 3] = ["std", "parking_lot", "pthread_mutex"];

/// Whose longest wait is compared with.
const PATIENT: &str = "parking_lot";

/// At least that of the best.
const MIN_THROUGHPUT: f64 = 1.0;
const MIN_JAIN: f64 = 0.95;
const MAX_WAIT: f64 = 2.0;

/// The locks without which `lock` cannot be judged.
pub(super) fn needs(lock: &'static Competitor) -> impl Iterator<Item = &'static str> {
    [lock.name].into_iter().chain(BARS)
}

/// One lock against the others.
#[derive(Debug, Serialize)]
pub(super) struct Versus {
    lock: &'static str,
    points: Vec<Comparison>,
}

/// At one point.
#[derive(Debug, Serialize)]
struct Comparison {
    workload: &'static str,
    point: String,
    scope: Scope,
    workers: usize,
    /// The one of [`BARS`] with the highest median.
    best: &'static str,
    /// Throughput, by the highest of [`BARS`] in the same round.
    throughput_to_best: Spread,
    jain: Spread,
    /// Longest wait, by that of [`PATIENT`] in the same round.
    longest_wait_to_parking_lot: Option<Spread>,
    good: bool,
}

impl Versus {
    /// `None` where there is nobody to compare `lock` with.
    pub(super) fn of(lock: &'static Competitor, workloads: &[(Workload, Vec<Measured>)]) -> Option<Self> {
        let points = workloads.iter().filter(|(workload, _)| workload.is_contended());
        let points = points.flat_map(|(workload, points)| points.iter().map(move |point| (workload, point)));
        let points = points.filter_map(|(&workload, point)| Comparison::of(lock.name, workload, point));
        let points: Vec<_> = points.collect();
        (!points.is_empty()).then_some(Self { lock: lock.name, points })
    }

    /// Whether the lock is good enough everywhere.
    pub(super) fn is_good(&self) -> bool {
        self.points.iter().all(|point| point.good)
    }
}

impl Comparison {
    fn of(lock: &str, workload: Workload, measured: &Measured) -> Option<Self> {
        let index = measured.position(lock)?;
        let bars = BARS.iter().filter(|&&bar| bar != lock);
        let bars = bars.filter_map(|&bar| Some((bar, measured.values(measured.position(bar)?, OPS_PER_S))));
        let bars: Vec<_> = bars.collect();
        let best = bars.iter().max_by(|(_, a), (_, b)| median(a.clone()).total_cmp(&median(b.clone())))?.0;
        let highest = |round: usize| bars.iter().map(|(_, values)| values[round]).fold(0.0, f64::max);
        let highest: Vec<_> = (0..measured.rounds.len()).map(highest).collect();
        let throughput_to_best = Spread::of(&ratios(&measured.values(index, OPS_PER_S), &highest))?;
        let jain = Spread::of(&measured.values(index, JAIN))?;
        let waits = |index| measured.values(index, ACQUIRE_MAX_NS);
        let patient = measured.position(PATIENT).filter(|&patient| patient != index);
        let wait = patient.and_then(|patient| Spread::of(&ratios(&waits(index), &waits(patient))));
        Some(Self {
            workload: workload.name(),
            point: measured.point.name.clone(),
            scope: measured.point.scope(),
            workers: measured.point.workers(),
            best,
            throughput_to_best,
            jain,
            longest_wait_to_parking_lot: wait,
            good: throughput_to_best.median >= MIN_THROUGHPUT
                && jain.median >= MIN_JAIN
                && wait.is_none_or(|wait| wait.median <= MAX_WAIT),
        })
    }
}

impl fmt::Display for Versus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} against the best of {}", self.lock, BARS.join(", "))?;
        let mut table = plain_table();
        let headings =
            ["x throughput of the best", "which is", "Jain", "x longest wait of parking_lot", "good"];
        let names = ["workload", "point"].map(Cell::new);
        table.set_header(names.into_iter().chain(headings.map(right)));
        let write = |spread| Shown::MedianAndSpread.write(spread, Unit::One);
        for point in &self.points {
            table.add_row([
                Cell::new(point.workload),
                Cell::new(&point.point),
                right(write(point.throughput_to_best)),
                right(point.best),
                right(Shown::Median.write(point.jain, Unit::One)),
                right(point.longest_wait_to_parking_lot.map_or_else(|| "-".to_owned(), write)),
                right(if point.good { "yes" } else { "no" }),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Sample;
    use super::super::roster::ROSTER;
    use super::*;

    /// Throughput, Jain and longest wait of each lock, in each of two rounds.
    type Figures<'a> = &'a [(&'static str, [[f64; 3]; 2])];

    fn versus(figures: Figures<'_>) -> Option<Versus> {
        let named = |name: &str| ROSTER.iter().find(|competitor| competitor.name == name).unwrap();
        let sample = |[ops, jain, wait]: [f64; 3]| {
            Sample::from([(OPS_PER_S, ops), (JAIN, jain), (ACQUIRE_MAX_NS, wait)])
        };
        let measured = Measured {
            point: Workload::W2.points(&[Scope::Processes], &[4]).remove(0),
            field: figures.iter().map(|(name, _)| named(name)).collect(),
            rounds: [0, 1]
                .map(|round| figures.iter().map(|(_, rounds)| sample(rounds[round])).collect())
                .into(),
        };
        Versus::of(named("robust"), &[(Workload::W2, vec![measured])])
    }

    #[test]
    fn the_best_of_each_round_is_the_bar() {
        let others = [
            ("robust", [[8.0, 1.0, 10.0], [30.0, 1.0, 30.0]]),
            ("std", [[4.0, 0.1, 1.0], [10.0, 0.1, 1.0]]),
            ("parking_lot", [[2.0, 1.0, 10.0], [20.0, 1.0, 10.0]]),
        ];
        let found = versus(&others).unwrap();
        let point = &found.points[0];
        assert_eq!(point.throughput_to_best, Spread { median: 1.75, min: 1.5, max: 2.0 });
        assert_eq!(point.longest_wait_to_parking_lot, Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!((point.best, point.scope, point.workers), ("parking_lot", Scope::Processes, 4));
        assert!(found.is_good());
    }

    #[test]
    fn slow_unfair_or_late_is_not_good() {
        let good = [5.0, 0.95, 20.0];
        for (figures, is_good) in
            [(good, true), ([4.9, 1.0, 1.0], false), ([9.0, 0.94, 1.0], false), ([9.0, 1.0, 20.1], false)]
        {
            let found = versus(&[("robust", [figures; 2]), ("parking_lot", [[5.0, 1.0, 10.0]; 2])]).unwrap();
            assert_eq!(found.is_good(), is_good, "{figures:?}");
        }
    }

    #[test]
    fn alone_it_is_neither() {
        assert!(versus(&[("robust", [[1.0; 3]; 2])]).is_none());
        assert!(versus(&[("std", [[1.0; 3]; 2])]).is_none());
    }
}
