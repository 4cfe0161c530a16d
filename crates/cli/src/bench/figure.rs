//! The figures that runs give, and how they are called, compared and written.

use std::collections::BTreeMap;

/// What one run of one lock gave, by the name of the figure.
pub(super) type Sample = BTreeMap<&'static str, f64>;

pub(super) const PAIR_NS: &str = "pair_ns";
pub(super) const OPS_PER_S: &str = "ops_per_s";
pub(super) const JAIN: &str = "jain";
pub(super) const MAX_BY_MIN: &str = "max_by_min";
pub(super) const ACQUIRE_P50_NS: &str = "acquire_p50_ns";
pub(super) const ACQUIRE_P99_NS: &str = "acquire_p99_ns";
pub(super) const ACQUIRE_P999_NS: &str = "acquire_p999_ns";
pub(super) const ACQUIRE_MAX_NS: &str = "acquire_max_ns";
pub(super) const CPU_NS_PER_OP: &str = "cpu_ns_per_op";

/// A figure as reported: a column of the table, and a field in the JSON.
#[derive(Debug)]
pub(super) struct Figure {
    /// What JSON calls it.
    pub(super) key: &'static str,
    /// What the table calls it.
    pub(super) heading: &'static str,
    /// Where it comes from.
    pub(super) source: Source,
    /// How the table writes it.
    pub(super) unit: Unit,
    /// What the table shows of the rounds; JSON has all.
    pub(super) shown: Shown,
}

/// Where a figure comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// From the sample, under this name.
    Measured(&'static str),
    /// The sample's figure `of`, by that of the lock `to` in the same round.
    Ratio {
        /// A key of the sample.
        of: &'static str,
        /// A contestant's name.
        to: &'static str,
    },
}

/// What the table shows of a figure.
#[derive(Debug)]
pub(super) enum Shown {
    Median,
    MedianAndSpread,
    /// The worst of all rounds.
    Max,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Nanoseconds,
    PerSecond,
    /// A plain number.
    One,
}

const fn measured(key: &'static str, heading: &'static str, unit: Unit, shown: Shown) -> Figure {
    Figure { key, heading, source: Source::Measured(key), unit, shown }
}

const fn ratio(key: &'static str, heading: &'static str, of: &'static str, to: &'static str) -> Figure {
    Figure { key, heading, source: Source::Ratio { of, to }, unit: Unit::One, shown: Shown::MedianAndSpread }
}

/// Of W1.
pub(super) static UNCONTENDED: [Figure; 3] = [
    measured(PAIR_NS, "acquire + release", Unit::Nanoseconds, Shown::MedianAndSpread),
    ratio("to_floor_cas_store", "x floor-cas-store", PAIR_NS, "floor-cas-store"),
    ratio("to_floor_cas_cas", "x floor-cas-cas", PAIR_NS, "floor-cas-cas"),
];

/// Of the others. Never throughput without fairness.
pub(super) static CONTENDED: [Figure; 9] = [
    measured(OPS_PER_S, "throughput", Unit::PerSecond, Shown::MedianAndSpread),
    ratio("to_std", "x std", OPS_PER_S, "std"),
    measured(JAIN, "Jain", Unit::One, Shown::Median),
    measured(MAX_BY_MIN, "max/min", Unit::One, Shown::Median),
    measured(ACQUIRE_P50_NS, "acquire p50", Unit::Nanoseconds, Shown::Median),
    measured(ACQUIRE_P99_NS, "p99", Unit::Nanoseconds, Shown::Median),
    measured(ACQUIRE_P999_NS, "p99.9", Unit::Nanoseconds, Shown::Median),
    measured(ACQUIRE_MAX_NS, "max", Unit::Nanoseconds, Shown::Max),
    measured(CPU_NS_PER_OP, "CPU per op", Unit::Nanoseconds, Shown::Median),
];

impl Unit {
    /// `value` in a unit that people read; `also` in brackets, in the same one
    /// unless far off.
    pub(super) fn write(self, value: f64, also: &[f64]) -> String {
        let scales: &[(f64, &str)] = match self {
            Self::Nanoseconds => &[(1e9, " s"), (1e6, " ms"), (1e3, " us"), (1.0, " ns")],
            Self::PerSecond => &[(1e6, " M/s"), (1e3, " k/s"), (1.0, " /s")],
            Self::One => &[(1.0, "")],
        };
        let fitting = scales.iter().find(|(scale, _)| value >= *scale);
        let &(scale, name) = fitting.unwrap_or(&scales[scales.len() - 1]);
        let also = also.iter().map(|&value| match value / scale {
            close @ 0.01..1000.0 => digits(close),
            _ => self.write(value, &[]),
        });
        let also: Vec<_> = also.collect();
        match &*also.join("..") {
            "" => format!("{}{name}", digits(value / scale)),
            also => format!("{}{name} ({also})", digits(value / scale)),
        }
    }
}

/// Three of them.
fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        0.01.. | 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_three_digits() {
        assert_eq!(Unit::Nanoseconds.write(5.4321, &[]), "5.43 ns");
        assert_eq!(Unit::Nanoseconds.write(12_345.0, &[999.0, 1e6]), "12.3 us (0.999..1.00 ms)");
        assert_eq!(Unit::Nanoseconds.write(2.5e9, &[]), "2.50 s");
        assert_eq!(Unit::PerSecond.write(123_456_789.0, &[]), "123 M/s");
        assert_eq!(Unit::PerSecond.write(0.0, &[]), "0.000 /s");
        assert_eq!(Unit::One.write(1.0, &[0.5, 2.0]), "1.00 (0.500..2.00)");
        assert_eq!(Unit::One.write(0.000_012_3, &[]), "1.2e-5");
        assert_eq!(Unit::One.write(f64::INFINITY, &[]), "inf");
    }

    #[test]
    fn no_figure_is_called_like_another() {
        for figures in [&UNCONTENDED[..], &CONTENDED[..]] {
            let keys: std::collections::HashSet<_> = figures.iter().map(|figure| figure.key).collect();
            assert_eq!(keys.len(), figures.len());
        }
    }
}
