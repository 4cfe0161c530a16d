//! A place in the source, in a word that others may read.

use core::panic::Location;
use core::ptr;

use crosslock_core::primitive::{AtomicU64, Ordering};

/// Nothing, or a `&'static Location`.
#[derive(Debug, Default)]
pub(crate) struct Site(AtomicU64);

impl Site {
    pub(crate) const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn set(&self, at: &'static Location<'static>) {
        self.0.store(ptr::from_ref(at).expose_provenance() as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<&'static Location<'static>> {
        let address = usize::try_from(self.0.load(Ordering::Relaxed)).ok()?;
        // SAFETY: null, or what `set` stored: the exposed address of something that lives for ever. Nobody else
        // writes the word.
        unsafe { ptr::with_exposed_provenance::<Location<'static>>(address).as_ref() }
    }
}
