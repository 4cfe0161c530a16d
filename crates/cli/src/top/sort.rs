//! In which order locks are shown.

use core::cmp::Ordering;

use clap::ValueEnum;

use super::sample::{Rates, Row};

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// What is waited for most
    #[default]
    Wait,
    /// What is taken most often
    Acquired,
    /// The longest queue
    Queue,
    /// What has been held longest
    Held,
    /// By name
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let here = all.iter().position(|&sort| sort == self).unwrap_or(0);
        all[(here + 1) % all.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Acquired => "acquired",
            Self::Queue => "queue",
            Self::Held => "held",
            Self::Name => "name",
        }
    }

    pub(super) fn apply(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| self.compare(a, b).then_with(|| a.lock.object.name.cmp(&b.lock.object.name)));
    }

    /// The larger first; of those that are alike in this, what is waited for most.
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let first = match self {
            Self::Name => return Ordering::Equal,
            Self::Wait => Ordering::Equal,
            Self::Acquired => by(a, b, |rates| rates.acquired_per_s),
            Self::Queue => b.lock.waiters.len().cmp(&a.lock.waiters.len()),
            Self::Held => b.held.cmp(&a.held),
        };
        let longest = || b.longest_wait().cmp(&a.longest_wait());
        let waiting = || by(a, b, |rates| rates.waiting).then_with(longest);
        first.then_with(waiting).then_with(|| by(a, b, |rates| rates.acquired_per_s))
    }
}

fn by(a: &Row, b: &Row, rate: fn(&Rates) -> f64) -> Ordering {
    let of = |row: &Row| row.rates.as_ref().map_or(0.0, rate);
    of(b).total_cmp(&of(a))
}
