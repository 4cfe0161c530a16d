//! What the program in a guest says: one JSON object a line.

use core::iter::Sum;

use serde::{Deserialize, Serialize};

/// Two counters that are equal outside of critical sections, who was in the last one, and how often that was another domain
/// than before.
pub type Field = [u64; 4];

/// What a program has found, or where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// Has the segment; waits for a line.
    Ready,
    /// The critical sections are over.
    Counted(Counted),
    /// The ping-pong is over.
    Played {
        /// Messages written or read.
        rounds: u64,
        /// Those that were not the next.
        out_of_order: u64,
        /// From one message to the next, in microseconds: the median. Where messages were held at first, of those for which two have
        /// slept.
        median_us: f64,
        /// How many those are.
        measured: u64,
    },
    /// Has the lock, and keeps it.
    Holds,
    /// Is about to take the lock.
    Waits,
    /// Has got the lock.
    Got(Got),
    /// Has released it.
    Released,
    /// Has done other things for a while.
    Visited {
        /// What went well.
        good: u64,
        /// What gave an error, which is fine where a peer writes garbage.
        errors: u64,
    },
    /// Round trips of something.
    Trips {
        /// How many.
        trips: u64,
        /// The median, in nanoseconds.
        median_ns: u64,
        /// The 99th percentile, in nanoseconds.
        p99_ns: u64,
    },
}

/// What critical sections came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// How many sections.
    pub turns: u64,
    /// Sections in which somebody else was, too.
    pub violations: u64,
    /// Sections after one of another domain.
    pub handed_over: u64,
    /// How often the lock said that its owner had died.
    pub owner_deaths: u64,
    /// Kicks that came later than the longest sleep.
    pub late_kicks: u64,
    /// The longest wait, in microseconds.
    pub longest_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// CPU time of the process in the meantime, in microseconds.
    pub cpu_us: u64,
}

/// Of several at once: what they did together, the longest wait, and the longest time.
impl Sum for Counted {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            turns: sum.turns + one.turns,
            violations: sum.violations + one.violations,
            handed_over: sum.handed_over + one.handed_over,
            owner_deaths: sum.owner_deaths + one.owner_deaths,
            late_kicks: sum.late_kicks + one.late_kicks,
            longest_us: sum.longest_us.max(one.longest_us),
            took_us: sum.took_us.max(one.took_us),
            cpu_us: sum.cpu_us + one.cpu_us,
        })
    }
}

/// How a lock was got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Got {
    /// Whether it said that its owner had died.
    pub owner_died: bool,
    /// How long it took, in microseconds.
    pub waited_us: u64,
    /// CPU time of the process in the meantime, in microseconds.
    pub cpu_us: u64,
}
