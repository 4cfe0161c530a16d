//! `crosslock torture --kill`: workers that are killed at any moment, and how fast the others go on.
//!
//! ```text
//!   torture ---- exec ----> herd ---- fork ----> workers, replaced when they are killed
//!                             |
//!                             +-- turns of a second: the lock | pthread mutex | the lock | ...
//! ```
//! The herd has one thread, so that it can fork workers without an exec: hundreds per second.

mod herd;
mod report;

use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;

use self::herd::HerdReport;
pub(super) use self::herd::run_herd;
use self::report::Report;
use super::lock::Lock;
use super::pthread::PthreadMutex;
use super::report::events;
use super::subject::Subject;
use super::{Args, Place, Scope, processes};
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::progress;

/// Kills per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(f64);

/// More are not to be had from a machine, nor are there names for their victims.
const MAX_RATE: f64 = 1000.0;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").and_then(|number| number.parse().ok());
        let rate = number.filter(|rate| *rate > 0.0 && *rate <= MAX_RATE).map(Self);
        rate.ok_or_else(|| {
            format!("{text:?} is no rate: give kills per second, as in 100/s, at most {MAX_RATE}/s")
        })
    }
}

impl Args {
    /// Whether turns are taken with the pthread mutex.
    fn compares(&self) -> bool {
        self.lock == Lock::Robust
    }
}

pub(super) fn run<S: Subject>(args: &Args, rate: Rate) -> anyhow::Result<Verdict> {
    if args.scope != Scope::Processes {
        bail!("--kill needs --scope processes: threads cannot be killed one by one");
    }
    if !args.lock.survives() {
        bail!(
            "--kill needs a lock that survives the death of its owner, robust or pthread_mutex_robust; {} stays taken",
            S::NAME
        );
    }
    let interrupt = Interrupt::install()?;
    let place = Place::new::<S>(args)?;
    if args.compares() {
        PthreadMutex::create(&place.segment)?;
    }
    let before = place.segment.counters();
    let herd = watch_herd(args, rate, &place, &interrupt)?;
    let report = Report::new(S::NAME, args.workers, herd, events(&before, &place.segment.counters()));
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.verdict())
}

/// Starts the herd and waits for what it found; it waits for nobody for ever.
fn watch_herd(
    args: &Args,
    Rate(rate): Rate,
    place: &Place,
    interrupt: &Interrupt,
) -> anyhow::Result<HerdReport> {
    let options = [("--kill", format!("{rate}/s")), ("--workers", args.workers.to_string())];
    let herd = processes::spawn(args, args.load(0), &place.segment, options)?;
    let handle = herd.handle()?;
    let (sender, result) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more only if the herd was given up.
        let _ = sender.send(herd.result::<HerdReport>());
    });
    let total = args.duration * if args.compares() { 2 } else { 1 };
    let millis = u64::try_from(total.as_millis())?;
    let bar = progress::bar(millis, format!("torture {} processes, killing {rate}/s", args.workers));
    let start = Instant::now();
    let mut interrupted = false;
    let report = loop {
        match result.recv_timeout(Duration::from_millis(50)) {
            Ok(report) => break report?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the herd ended without a result"),
        }
        if interrupt.is_raised() && !interrupted {
            interrupted = true;
            handle.interrupt();
        }
        bar.set_position(u64::try_from(start.elapsed().as_millis())?.min(millis));
    };
    bar.finish_and_clear();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_understood() {
        assert_eq!("100/s".parse(), Ok(Rate(100.0)));
        assert_eq!("0.5/s".parse(), Ok(Rate(0.5)));
        for text in ["", "100", "/s", "0/s", "-1/s", "NaN/s", "inf/s", "1001/s", "100/m", "100 /s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
