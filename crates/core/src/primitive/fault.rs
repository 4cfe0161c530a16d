//! Faults for negative controls: a model checker must catch each of them.
//!
//! They live below the algorithms, so that the source that is checked stays the one that ships.

#![allow(clippy::disallowed_types, reason = "the knob must not be an event of the model")]

use core::sync::atomic::{AtomicU8, Ordering};

/// What to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Nothing.
    None,
    /// The release of a lock word is `Relaxed` instead of `Release`.
    ReleaseIsRelaxed,
    /// Fences do nothing.
    NoFence,
}

static ACTIVE: AtomicU8 = AtomicU8::new(Fault::None as u8);

/// Breaks `fault` until the next call.
pub fn inject(fault: Fault) {
    ACTIVE.store(fault as u8, Ordering::SeqCst);
}

pub(super) fn active(fault: Fault) -> bool {
    ACTIVE.load(Ordering::SeqCst) == fault as u8
}

pub(super) fn order(fault: Fault, order: Ordering) -> Ordering {
    if active(fault) { Ordering::Relaxed } else { order }
}
