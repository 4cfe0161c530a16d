//! The results, for people and for programs.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::figure::{Figure, Sample, Shown, Source, Unit};
use super::machine::Machine;
use super::plan::{Point, Workload};
use super::roster::Competitor;
use super::versus::Versus;
use crate::stats::{Spread, ratios};

/// All that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: u32,
    pub(super) duration_ms: f64,
    /// The run was ended before its time: what is here is of whole rounds.
    pub(super) interrupted: bool,
    pub(super) workloads: Vec<(Workload, Vec<Measured>)>,
    /// Where its rivals took part.
    pub(super) versus: Option<Versus>,
}

/// A point, and what every competitor did there.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) point: Point,
    pub(super) field: Vec<&'static Competitor>,
    /// By round, in the order of `field`.
    pub(super) rounds: Vec<Vec<Sample>>,
}

impl Measured {
    /// `figure` of the competitor at `index`, of all rounds.
    fn spread(&self, index: usize, figure: &Figure) -> Option<Spread> {
        match figure.source {
            Source::Measured(key) => Spread::of(&self.values(index, key)),
            Source::Ratio { of, to } => {
                let reference = self.position(to)?;
                Spread::of(&ratios(&self.values(index, of), &self.values(reference, of)))
            }
        }
    }

    /// Where in the field the lock `name` is.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.field.iter().position(|competitor| competitor.name == name)
    }

    /// What the competitor at `index` did in each round.
    pub(super) fn values(&self, index: usize, key: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|samples| samples[index].get(key).copied()).collect()
    }

    fn table(&self, figures: &[Figure]) -> Table {
        let mut table = plain_table();
        let headings = figures.iter().map(|figure| right(figure.heading));
        table.set_header([Cell::new("lock")].into_iter().chain(headings));
        for (index, competitor) in self.field.iter().enumerate() {
            let figures = figures.iter().map(|figure| {
                let text = self.spread(index, figure).map(|spread| figure.shown.write(spread, figure.unit));
                right(text.unwrap_or_else(|| "-".to_owned()))
            });
            let name = competitor.title(self.point.scope());
            table.add_row([Cell::new(name)].into_iter().chain(figures));
        }
        table
    }

    fn json(&self, figures: &[Figure]) -> Value {
        let contestants = self.field.iter().enumerate().map(|(index, competitor)| {
            let mut object = Map::new();
            object.insert("lock".to_owned(), competitor.title(self.point.scope()).into());
            for figure in figures {
                object.insert(figure.key.to_owned(), json!(self.spread(index, figure)));
            }
            Value::Object(object)
        });
        json!({
            "point": self.point.name,
            "scope": self.point.scope(),
            "workers": self.point.workers(),
            "rounds": self.rounds.len(),
            "contestants": contestants.collect::<Vec<_>>(),
        })
    }
}

/// A table without lines.
pub(super) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A cell for a figure.
pub(super) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

impl Shown {
    pub(super) fn write(&self, spread: Spread, unit: Unit) -> String {
        let Spread { median, min, max } = spread;
        match self {
            Self::Median => unit.write(median, &[]),
            Self::MedianAndSpread => unit.write(median, &[min, max]),
            Self::Max => unit.write(max, &[]),
        }
    }
}

impl Report {
    /// The object that `--json` prints. A figure is its median, least and greatest value over the rounds, null
    /// where it is infinite or has no lock to be compared with.
    pub(super) fn json(&self) -> Value {
        let workloads = self.workloads.iter().map(|(workload, points)| {
            let points = points.iter().map(|point| point.json(workload.figures()));
            json!({
                "workload": workload.name(),
                "title": workload.title(),
                "points": points.collect::<Vec<_>>(),
            })
        });
        json!({
            "machine": self.machine,
            "rounds": self.rounds,
            "duration_ms": self.duration_ms,
            "interrupted": self.interrupted,
            "workloads": workloads.collect::<Vec<_>>(),
            "versus": self.versus,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} rounds of {} ms; medians (min..max of the rounds)", self.rounds, self.duration_ms)?;
        for (workload, points) in &self.workloads {
            for point in points {
                writeln!(f, "\n{} {}: {}", workload.name(), workload.title(), point.point.name)?;
                writeln!(f, "{}", point.table(workload.figures()))?;
            }
        }
        if let Some(versus) = &self.versus {
            writeln!(f, "\n{versus}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{CONTENDED, OPS_PER_S};
    use super::super::roster::ROSTER;
    use super::*;
    use crate::torture::Scope;

    fn measured(names: [&str; 2], rounds: &[[f64; 2]]) -> Measured {
        let field = names.map(|name| ROSTER.iter().find(|competitor| competitor.name == name).unwrap());
        let samples = |values: &[f64; 2]| values.map(|value| Sample::from([(OPS_PER_S, value)])).to_vec();
        Measured {
            point: Workload::W2.points(&[Scope::Threads], &[2]).remove(0),
            field: field.to_vec(),
            rounds: rounds.iter().map(samples).collect(),
        }
    }

    #[test]
    fn the_ratio_is_made_per_round() {
        let point = measured(["mcs", "std"], &[[10.0, 5.0], [1000.0, 500.0], [30.0, 10.0]]);
        let json = point.json(&CONTENDED);
        assert_eq!(json["contestants"][0]["to_std"], json!({"median": 2.0, "min": 2.0, "max": 3.0}));
        assert_eq!(json["contestants"][0]["ops_per_s"]["median"], 30.0);
    }

    #[test]
    fn without_its_reference_there_is_no_ratio() {
        let point = measured(["mcs", "tas"], &[[10.0, 5.0]]);
        assert_eq!(point.json(&CONTENDED)["contestants"][0]["to_std"], Value::Null);
        assert!(point.table(&CONTENDED).to_string().contains("10.0 /s (10.0..10.0)"));
    }
}
