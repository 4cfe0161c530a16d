//! What is made of the figures of several rounds and threads.

use serde::Serialize;

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: median_of_sorted(&sorted), min, max })
    }
}

/// The median, or 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    median_of_sorted(&values)
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (len, half) if len % 2 == 1 => sorted[half],
        (_, half) => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// Round by round, the one to the other; what disturbs a whole round cancels out.
pub(crate) fn ratios(figures: &[f64], references: &[f64]) -> Vec<f64> {
    figures.iter().zip(references).map(|(figure, reference)| figure / reference).collect()
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has all.
///
/// R. Jain, D. Chiu, W. Hawe, "A quantitative measure of fairness", DEC TR-301, 1984.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// The largest share by the smallest: infinite where somebody starved.
pub(crate) fn max_by_min(shares: &[f64]) -> f64 {
    let max = shares.iter().copied().fold(0.0, f64::max);
    let min = shares.iter().copied().fold(f64::INFINITY, f64::min);
    if max == 0.0 { 1.0 } else { max / min }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![f64::INFINITY, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[5.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 5.0 }));
    }

    #[test]
    fn fairness_of_known_shares() {
        assert!((jain(&[5.0, 5.0, 5.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[9.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-12);
        assert!((jain(&[0.0, 0.0]) - 1.0).abs() < 1e-12);
        assert_eq!(max_by_min(&[2.0, 8.0, 4.0]), 4.0);
        assert_eq!(max_by_min(&[2.0, 0.0]), f64::INFINITY);
        assert_eq!(max_by_min(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn a_disturbed_round_does_not_disturb_the_ratio() {
        assert_eq!(median(ratios(&[11.0, 110.0, 11.0], &[10.0, 100.0, 10.0])), 1.1);
    }
}
