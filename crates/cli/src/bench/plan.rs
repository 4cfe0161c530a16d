//! The workloads, and the points at which each is measured.

use clap::ValueEnum;

use super::arena::Load;
use super::figure::{CONTENDED, Figure, UNCONTENDED};
use super::roster::Competitor;
use super::uncontended::COLD_LOCKS;
use crate::torture::Scope;

/// A workload of the literature on locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Uncontended: one lock over and over, and a million locks once each
    #[value(name = "W1")]
    W1,
    /// MutexBench: one step of a shared random generator inside, nothing outside
    #[value(name = "W2")]
    W2,
    /// The same with 0 to 250 steps of a private generator outside
    #[value(name = "W3")]
    W3,
    /// Critical sections of 1, 10, 100 and 1000 pauses, nothing outside
    #[value(name = "W7")]
    W7,
}

/// What is measured at a point.
#[derive(Debug)]
pub(super) enum Job {
    Hot,
    Cold,
    Contended(Scope, Load),
}

/// One setting of a workload: all competitors meet in it.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) job: Job,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W7 => "W7",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::W1 => "uncontended",
            Self::W2 => "one random step inside, nothing outside",
            Self::W3 => "one random step inside, 0 to 250 outside",
            Self::W7 => "pauses inside, nothing outside",
        }
    }

    /// The points, in the order of the tables. W1 is for one thread whatever the others say.
    pub(super) fn points(self, scopes: &[Scope], workers: &[u16]) -> Vec<Point> {
        let idle = Load { workers: 1, steps_inside: 0, pauses_inside: 0, max_steps_outside: 0 };
        let (loads, pauses): (_, &[u32]) = match self {
            Self::W1 => {
                let cold = format!("{COLD_LOCKS} locks, each once in random order");
                return vec![
                    Point { name: "one lock".to_owned(), job: Job::Hot },
                    Point { name: cold, job: Job::Cold },
                ];
            }
            Self::W2 => (Load { steps_inside: 1, ..idle }, &[0]),
            Self::W3 => (Load { steps_inside: 1, max_steps_outside: 250, ..idle }, &[0]),
            Self::W7 => (idle, &[1, 10, 100, 1000]),
        };
        let loads = pauses.iter().flat_map(|&pauses_inside| {
            workers.iter().map(move |&workers| Load { workers: workers.into(), pauses_inside, ..loads })
        });
        loads.flat_map(|load| scopes.iter().map(move |&scope| Point::contended(scope, load))).collect()
    }

    /// What is told of each competitor.
    pub(super) fn figures(self) -> &'static [Figure] {
        if self.is_contended() { &CONTENDED } else { &UNCONTENDED }
    }

    /// Whether workers want the same lock.
    pub(super) fn is_contended(self) -> bool {
        self != Self::W1
    }
}

impl Point {
    fn contended(scope: Scope, load: Load) -> Self {
        let workers = match (scope, load.workers) {
            (Scope::Threads, 1) => "1 thread".to_owned(),
            (Scope::Processes, 1) => "1 process".to_owned(),
            (scope, workers) => format!("{workers} {scope}"),
        };
        let name = match load.pauses_inside {
            0 => workers,
            1 => format!("{workers}, 1 pause inside"),
            pauses => format!("{workers}, {pauses} pauses inside"),
        };
        Self { name, job: Job::Contended(scope, load) }
    }

    /// How many workers take part.
    pub(super) fn workers(&self) -> usize {
        match self.job {
            Job::Hot | Job::Cold => 1,
            Job::Contended(_, load) => load.workers,
        }
    }

    /// What the workers are.
    pub(super) fn scope(&self) -> Scope {
        match self.job {
            Job::Hot | Job::Cold => Scope::Threads,
            Job::Contended(scope, _) => scope,
        }
    }

    /// Whether `competitor` can take part.
    pub(super) fn admits(&self, competitor: &Competitor) -> bool {
        match self.job {
            Job::Hot | Job::Cold => true,
            Job::Contended(scope, _) => competitor.can_meet(scope),
        }
    }
}
