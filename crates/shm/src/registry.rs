//! The registry lock: whoever holds it may register a participant or create an object.
//!
//! Each holder has a file description of its own, so the kernel keeps threads apart as it does processes,
//! and the lock ends with the holder, whatever happens to it.

use std::os::fd::AsFd;

use crosslock_core::CpuId;
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

/// Whether the participant of `slot` lives; `probe` is a description of its own.
pub(crate) fn is_leased(segment: &SegmentContext, probe: &Description, slot: CpuId) -> Result<bool> {
    let held = Lease::Participant(slot).is_held_by_others(probe.as_fd());
    held.map_err(Error::io(segment.label(), "ask for its leases"))
}
