//! What is looked at in a pass.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longer waits than this count as this.
const LONGEST: Duration = Duration::from_secs(100);

/// What a worker carries along, and is told of every acquisition.
pub(super) trait Probe: Sized {
    /// A moment, if this probe looks at the clock.
    type Moment;

    fn new() -> anyhow::Result<Self>;
    fn now() -> Self::Moment;
    fn record(&mut self, asked: Self::Moment, acquired: Self::Moment);
    /// How long the acquisitions took, in nanoseconds, if it knows.
    fn waits(self) -> Option<Histogram<u64>>;
}

/// Nothing but the number of acquisitions.
pub(super) struct Counting;

impl Probe for Counting {
    type Moment = ();

    fn new() -> anyhow::Result<Self> {
        Ok(Self)
    }

    #[inline]
    fn now() {}

    #[inline]
    fn record(&mut self, (): (), (): ()) {}

    fn waits(self) -> Option<Histogram<u64>> {
        None
    }
}

/// How long each acquisition took.
pub(super) struct Timing(Histogram<u64>);

/// Without waits, and with room for all.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    // Bounded, so that none grows while it is measured.
    Ok(Histogram::new_with_bounds(1, u64::try_from(LONGEST.as_nanos())?, 3)?)
}

impl Probe for Timing {
    type Moment = Instant;

    fn new() -> anyhow::Result<Self> {
        histogram().map(Self)
    }

    #[inline]
    fn now() -> Instant {
        Instant::now()
    }

    #[inline]
    fn record(&mut self, asked: Instant, acquired: Instant) {
        let wait = acquired.duration_since(asked).min(LONGEST);
        self.0.saturating_record(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    }

    fn waits(self) -> Option<Histogram<u64>> {
        Some(self.0)
    }
}
