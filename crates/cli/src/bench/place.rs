//! Where a lock is used: in this process, or in a segment.

use std::time::Duration;

use crosslock::{Options, SegmentContext, ThreadContext};

use crate::interrupt::Interrupt;

/// What every run of a lock is told.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    /// What the lock's segment is like, if it wants one.
    pub(super) segment: fn() -> Options,
    pub(super) duration: Duration,
    pub(super) interrupt: &'a Interrupt,
}

impl Trial<'_> {
    /// A segment for `workers` that take part, and this thread.
    pub(super) fn options(&self, workers: usize) -> anyhow::Result<Options> {
        Ok((self.segment)().participants(u32::try_from(workers)? + 1))
    }
}

/// A context that a lock is used in.
pub(super) trait Place: Sync + Sized {
    /// Runs `run` there.
    fn visit<R>(options: &Options, run: impl FnOnce(&Self) -> anyhow::Result<R>) -> anyhow::Result<R>;
}

impl Place for ThreadContext {
    fn visit<R>(_options: &Options, run: impl FnOnce(&Self) -> anyhow::Result<R>) -> anyhow::Result<R> {
        run(&Self)
    }
}

impl Place for SegmentContext {
    fn visit<R>(options: &Options, run: impl FnOnce(&Self) -> anyhow::Result<R>) -> anyhow::Result<R> {
        run(options.create_memfd("bench")?.context()?)
    }
}
