//! The registry lock: whoever holds it may register a participant or create an object.
//!
//! Each holder has a file description of its own, so the kernel keeps threads apart as it does processes,
//! and the lock ends with the holder, whatever happens to it.

use std::os::fd::AsFd;

use core::time::Duration;

use crosslock_core::{Condition, CpuId, Name, Refused};
use rustix::fs::OFlags;

use crate::description::Description;
use crate::error::{Error, Result};
use crate::lease::{Lease, Mode};
use crate::segment::SegmentContext;

/// Exclusive right to change what is registered in a segment, given up on drop.
#[derive(Debug)]
pub(crate) struct Registry<'a> {
    segment: &'a SegmentContext,
    probe: Description,
}

impl<'a> Registry<'a> {
    pub(crate) fn lock(segment: &'a SegmentContext) -> Result<Self> {
        segment.check_writable("register with it or to create objects")?;
        let probe = segment.probe(OFlags::RDWR)?;
        Lease::Registry.lock(probe.as_fd(), Mode::Exclusive, segment.label())?;
        Ok(Self { segment, probe })
    }

    /// Whether the participant of `slot` lives.
    pub(crate) fn is_leased(&self, slot: CpuId) -> Result<bool> {
        is_leased(self.segment, &self.probe, slot)
    }
}

/// Exclusive right to create objects, given up on drop. Where the registry lock reaches all who share the segment, it is that; in
/// one of several domains a robust lock in the segment, so that a dead creator is found everywhere.
#[derive(Debug)]
pub(crate) enum Creation<'a> {
    Near { _registry: Registry<'a> },
    Far { segment: &'a SegmentContext, me: Name },
}

/// How long to wait for other domains, which create objects in no time.
const PATIENCE_MS: u64 = 10_000;

impl<'a> Creation<'a> {
    pub(crate) fn lock(segment: &'a SegmentContext) -> Result<Self> {
        if segment.geometry().domains == 1 {
            return Ok(Self::Near { _registry: Registry::lock(segment)? });
        }
        segment.check_writable("create objects")?;
        let me = segment.me()?;
        let until_ns = segment.deadline_ns(Duration::from_millis(PATIENCE_MS));
        match segment.creation_lock().acquire_until(segment, me, until_ns) {
            // What a dead one left is found by its entry, which is not ready.
            Ok(_) => Ok(Self::Far { segment, me }),
            Err(Refused::TimedOut) => {
                let (segment, what) = (segment.label().into(), "creation lock");
                Err(Error::Busy { segment, what, waited_ms: PATIENCE_MS })
            }
            Err(refused) => Err(refused.into()),
        }
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        if let Self::Far { segment, me } = *self {
            // SAFETY: acquired by `lock`. An error says that a peer has overwritten the word.
            let _ = unsafe { segment.creation_lock().release_as(segment, me, Condition::CONSISTENT) };
        }
    }
}

/// Whether the participant of `slot` lives; `probe` is a description of its own.
pub(crate) fn is_leased(segment: &SegmentContext, probe: &Description, slot: CpuId) -> Result<bool> {
    let held = Lease::Participant(slot).is_held_by_others(probe.as_fd());
    held.map_err(Error::io(segment.label(), "ask for its leases"))
}
