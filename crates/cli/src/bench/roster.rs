//! Who takes part, by name.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use crosslock::{Options, Release, SegmentContext, ThreadContext};
use crosslock_core::RawLock;

use super::arena::Load;
use super::contended;
use super::contestant::{Bare, Contestant, Data, Floor, Guarding, Robust};
use super::figure::Sample;
use super::place::{Place, Trial};
use super::plan::Job;
use super::processes::Shared;
use super::{pthread, uncontended};
use crate::interrupt::Interrupt;
use crate::torture::Scope;

/// A lock that takes part: its name, and the workloads compiled for it.
pub(super) struct Competitor {
    pub(super) name: &'static str,
    /// Whether it excludes. The floors do not, and run alone.
    pub(super) is_lock: bool,
    /// Cannot be shared, but is what locks that can are compared with: meets them among threads.
    is_bar: bool,
    segment: fn() -> Options,
    hot: fn(&Trial<'_>) -> anyhow::Result<Sample>,
    cold: fn(&Trial<'_>) -> anyhow::Result<Sample>,
    among_threads: fn(&Load, &Trial<'_>) -> anyhow::Result<Sample>,
    pub(super) shared: Option<Shared>,
}

impl fmt::Debug for Competitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Competitor {
    /// Whether it can take part where the workers are `scope`.
    pub(super) fn can_meet(&self, scope: Scope) -> bool {
        self.is_lock && (scope == Scope::Threads || self.is_bar || self.shared.is_some())
    }

    /// What it is called in a table of workers that are `scope`.
    pub(super) fn title(&self, scope: Scope) -> Cow<'static, str> {
        if scope == Scope::Processes && self.shared.is_none() {
            format!("{} (threads)", self.name).into()
        } else {
            self.name.into()
        }
    }

    /// One run.
    pub(super) fn run(&self, job: &Job, duration: Duration, interrupt: &Interrupt) -> anyhow::Result<Sample> {
        let trial = Trial { segment: self.segment, duration, interrupt };
        match (job, &self.shared) {
            (Job::Hot, _) => (self.hot)(&trial),
            (Job::Cold, _) => (self.cold)(&trial),
            (Job::Contended(Scope::Processes, load), Some(shared)) => (shared.run)(self.name, load, &trial),
            (Job::Contended(_, load), _) => (self.among_threads)(load, &trial),
        }
    }
}

/// A lock of the threads of one process, used in `C`.
const fn lock<L: Contestant<C>, C: Place>(name: &'static str) -> Competitor {
    Competitor {
        name,
        is_lock: true,
        is_bar: false,
        segment: Options::new,
        hot: uncontended::hot::<L, C>,
        cold: uncontended::cold::<L, C>,
        among_threads: contended::among_threads::<L, C>,
        shared: None,
    }
}

const fn private<L: Contestant<ThreadContext>>(name: &'static str) -> Competitor {
    lock::<L, ThreadContext>(name)
}

const fn bar<L: Contestant<ThreadContext>>(name: &'static str) -> Competitor {
    Competitor { is_bar: true, ..private::<L>(name) }
}

const fn floor<const TWO: bool>(name: &'static str) -> Competitor {
    Competitor { is_lock: false, ..private::<Guarding<Floor<TWO>>>(name) }
}

/// Among threads without a segment, among processes in one.
const fn shareable<B: Bare<ThreadContext> + Bare<SegmentContext>>(name: &'static str) -> Competitor {
    Competitor { shared: Some(Shared::of::<Guarding<B>>()), ..private::<Guarding<B>>(name) }
}

const fn family<L: RawLock<ThreadContext> + RawLock<SegmentContext>>(name: &'static str) -> Competitor {
    shareable::<L>(name)
}

const fn robust(name: &'static str, segment: fn() -> Options) -> Competitor {
    let shared = Some(Shared::of::<Robust>());
    Competitor { segment, shared, ..lock::<Robust, SegmentContext>(name) }
}

fn released_by_exchange() -> Options {
    Options::new().release(Release::Exchange)
}

/// All of them, in the order of the tables.
pub(super) static ROSTER: [Competitor; 18] = [
    floor::<false>("floor-cas-store"),
    floor::<true>("floor-cas-cas"),
    family::<crosslock_core::RawTas>("tas"),
    family::<crosslock_core::RawTicket>("ticket"),
    family::<crosslock_core::RawMcs>("mcs"),
    family::<crosslock_core::RawQSpin>("qspinlock"),
    family::<crosslock_core::RawPvQSpin>("pvqspinlock"),
    robust("robust", Options::new),
    robust("robust-exchange", released_by_exchange),
    private::<lock_api::Mutex<crosslock::RawQSpin, Data>>("lock_api/qspinlock"),
    private::<lock_api::Mutex<crosslock::RawPvQSpin, Data>>("lock_api/pvqspinlock"),
    shareable::<pthread::Spin>("pthread_spin"),
    shareable::<pthread::Mutex<false>>("pthread_mutex"),
    shareable::<pthread::Mutex<true>>("pthread_mutex_robust"),
    bar::<std::sync::Mutex<Data>>("std"),
    bar::<parking_lot::Mutex<Data>>("parking_lot"),
    private::<spin::Mutex<Data>>("spin"),
    private::<mcslock::raw::spins::Mutex<Data>>("mcslock"),
];

/// Understands the name of a competitor.
pub(super) fn parser() -> impl TypedValueParser<Value = &'static Competitor> {
    let names = PossibleValuesParser::new(ROSTER.iter().map(|competitor| competitor.name));
    names.try_map(|name| {
        ROSTER.iter().find(|competitor| competitor.name == name).ok_or("no lock is called so")
    })
}
