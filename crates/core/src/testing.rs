//! A context for unit tests: one CPU of its own.

use crate::{Context, CpuId, PerCpu};

/// The only CPU there is.
#[derive(Debug, Default)]
pub(crate) struct Cpu([PerCpu; 1]);

// SAFETY: used by one thread at a time.
unsafe impl Context for Cpu {
    fn cpu(&self) -> Option<CpuId> {
        CpuId::new(0)
    }

    fn per_cpu(&self) -> &[PerCpu] {
        &self.0
    }
}
