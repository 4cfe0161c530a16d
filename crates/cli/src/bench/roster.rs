//! Who takes part, by name.

use std::fmt;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::contended::{self, Load};
use super::contestant::{Contestant, Data, Floor, Guarding, Robust};
use super::figure::Sample;
use super::{pthread, uncontended};
use crate::interrupt::Interrupt;

/// A lock that takes part: its name, and the workloads compiled for it.
pub(super) struct Competitor {
    pub(super) name: &'static str,
    /// Whether it excludes. The floors do not, and run alone.
    pub(super) is_lock: bool,
    pub(super) hot: fn(Duration, &Interrupt) -> Sample,
    pub(super) cold: fn(Duration, &Interrupt) -> Sample,
    pub(super) contended: fn(&Load, Duration, &Interrupt) -> anyhow::Result<Sample>,
}

impl fmt::Debug for Competitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn lock<L: Contestant>(name: &'static str) -> Competitor {
    Competitor {
        name,
        is_lock: true,
        hot: uncontended::hot::<L>,
        cold: uncontended::cold::<L>,
        contended: contended::run::<L>,
    }
}

const fn floor<const TWO: bool>(name: &'static str) -> Competitor {
    Competitor { is_lock: false, ..lock::<Guarding<Floor<TWO>>>(name) }
}

/// All of them, in the order of the tables.
pub(super) static ROSTER: [Competitor; 17] = [
    floor::<false>("floor-cas-store"),
    floor::<true>("floor-cas-cas"),
    lock::<Guarding<crosslock_core::RawTas>>("tas"),
    lock::<Guarding<crosslock_core::RawTicket>>("ticket"),
    lock::<Guarding<crosslock_core::RawMcs>>("mcs"),
    lock::<Guarding<crosslock_core::RawQSpin>>("qspinlock"),
    lock::<Guarding<crosslock_core::RawPvQSpin>>("pvqspinlock"),
    lock::<Robust>("robust"),
    lock::<lock_api::Mutex<crosslock::RawQSpin, Data>>("lock_api/qspinlock"),
    lock::<lock_api::Mutex<crosslock::RawPvQSpin, Data>>("lock_api/pvqspinlock"),
    lock::<Guarding<pthread::Spin>>("pthread_spin"),
    lock::<Guarding<pthread::Mutex<false>>>("pthread_mutex"),
    lock::<Guarding<pthread::Mutex<true>>>("pthread_mutex_robust"),
    lock::<std::sync::Mutex<Data>>("std"),
    lock::<parking_lot::Mutex<Data>>("parking_lot"),
    lock::<spin::Mutex<Data>>("spin"),
    lock::<mcslock::raw::spins::Mutex<Data>>("mcslock"),
];

/// Understands the name of a competitor.
pub(super) fn parser() -> impl TypedValueParser<Value = &'static Competitor> {
    let names = PossibleValuesParser::new(ROSTER.iter().map(|competitor| competitor.name));
    names.try_map(|name| {
        ROSTER.iter().find(|competitor| competitor.name == name).ok_or("no lock is called so")
    })
}
