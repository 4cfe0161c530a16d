//! What runs below: on Arm nothing says whether anything does, and nothing offers to wake a waiting CPU or tells who is preempted. So a
//! kernel there is as one without a hypervisor, which Linux is, too.

/// Nothing that is known of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hypervisor {
    pub(crate) is_there: bool,
}

impl Hypervisor {
    /// Finds none.
    pub(crate) fn find() -> Self {
        Self::default()
    }

    /// What it calls itself.
    pub(crate) fn name(&self) -> &'static str {
        ""
    }

    /// Whether a hypercall wakes a waiting CPU.
    pub(crate) fn unhalts(&self) -> bool {
        false
    }

    /// Whether it says that each virtual CPU has a CPU of its own.
    pub(crate) fn is_realtime(&self) -> bool {
        false
    }

    /// Whether it tells who is preempted.
    pub(crate) fn has_steal_time(&self) -> bool {
        false
    }

    /// On each CPU: has it tell about it.
    pub(crate) fn share_steal_time(&self) {}

    /// Wakes a waiting CPU; `false`, since it is refused.
    pub(crate) fn kick(&self, _cpu: usize) -> bool {
        false
    }
}

/// Whether `cpu` has been taken off its CPU, as far as is told.
pub(crate) fn is_preempted(_cpu: usize) -> bool {
    false
}
