//! Whether a thread sleeps, by `/proc`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A thread that is found asleep this often in a row, with a pause in between, waits for somebody.
const SIGHTINGS: u32 = 4;
const PAUSE: Duration = Duration::from_micros(500);

/// A thread that may fall asleep.
#[derive(Debug)]
pub(super) struct Sleeper {
    stat: PathBuf,
    sightings: u32,
}

impl Sleeper {
    pub(super) fn new(process: i32, thread: i32) -> Self {
        Self { stat: format!("/proc/{process}/task/{thread}/stat").into(), sightings: 0 }
    }

    /// Looks once; true once it has been found asleep often enough.
    pub(super) fn is_asleep(&mut self) -> bool {
        // A thread that is no more does not sleep.
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        // The name before it is in parentheses and may contain anything.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        self.sightings = if state == Some('S') { self.sightings + 1 } else { 0 };
        self.sightings >= SIGHTINGS
    }

    /// Waits until it sleeps; false if it does not within `patience`.
    pub(super) fn wait(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        while !self.is_asleep() {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }
}
