//! The scenarios.

mod crowd;
mod doorbell;
mod exclusion;
mod garbage;
mod machine_death;
mod oversubscribed;
mod paused;
mod process_death;

use std::time::Duration;

use vmlab::{Arch, Cpu};

use crate::outcome::Outcome;

/// How much of a scenario is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Enough for every change.
    Quick,
    /// All of it.
    Full,
}

/// How, and where, scenarios are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// How much is to be done.
    pub extent: Extent,
    /// Whether this machine is itself emulated, and its guests are KVM's.
    pub is_nested: bool,
}

impl Setting {
    /// On this machine as it is.
    #[must_use]
    pub fn new(extent: Extent) -> Self {
        Self { extent, is_nested: false }
    }

    /// Whether times are judged, and not only that things do happen. In small there is no time to measure them; where the
    /// processor is an emulator's, they are the emulator's.
    fn judges_times(self) -> bool {
        self.extent == Extent::Full && !self.is_nested
    }

    /// Whether guests of that processor can be had: KVM has only those of its own kind.
    fn has(self, cpu: Cpu) -> bool {
        !self.is_nested || cpu.arch() == Arch::X86_64
    }

    /// How long something may take that must happen within `limit` on a machine that is not emulated.
    fn deadline(self, limit: Duration) -> Duration {
        if self.is_nested { limit.max(NESTED_DEADLINE) } else { limit }
    }
}

/// In an emulated machine an exit of KVM's takes a hundred times as long as in a real one, and four virtual CPUs take turns on two
/// that are emulated themselves. What happens at all happens within this time; when somebody looks by himself he sees it later.
const NESTED_DEADLINE: Duration = Duration::from_secs(2);

/// Something that is to hold on real guests.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Whether it is one of those for every change.
    pub is_quick: bool,
    /// Whether it is about guests of two architectures.
    pub is_mixed: bool,
    run: fn(&'static str, Setting) -> anyhow::Result<Vec<Outcome>>,
}

impl Scenario {
    /// Boots what it needs, does it, and tells what it came to.
    ///
    /// # Errors
    /// It could not be done; whatever was done is not known then.
    pub fn run(&self, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
        (self.run)(self.name, setting)
    }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "no-lock",
        about: "without a lock updates are lost: the check can fail",
        is_quick: true,
        is_mixed: false,
        run: exclusion::without_lock,
    },
    Scenario {
        name: "same",
        about: "two x86-64 guests: every lock, and the ping-pong under two locks",
        is_quick: true,
        is_mixed: false,
        run: exclusion::same,
    },
    Scenario {
        name: "host",
        about: "this host with one guest, and with two",
        is_quick: false,
        is_mixed: false,
        run: exclusion::with_host,
    },
    Scenario {
        name: "mixed",
        about: "x86-64 with load-linked / store-conditional, and with LSE; write-combined and device memory",
        is_quick: true,
        is_mixed: true,
        run: exclusion::mixed,
    },
    Scenario {
        name: "doorbell",
        about: "two guests with agents: waiters sleep, no kick is lost, round trips against bare eventfds",
        is_quick: true,
        is_mixed: false,
        run: doorbell::run,
    },
    Scenario {
        name: "machine-death",
        about: "kill -9 of a QEMU whose guest has a lock, waits for one, and counts with two others",
        is_quick: true,
        is_mixed: false,
        run: machine_death::run,
    },
    Scenario {
        name: "process-death",
        about: "owner and waiter killed inside a guest; its agent killed; the server killed",
        is_quick: false,
        is_mixed: false,
        run: process_death::run,
    },
    Scenario {
        name: "plain-death",
        about: "owner and waiter killed inside a guest that has no interrupts",
        is_quick: false,
        is_mixed: false,
        run: process_death::without_interrupts,
    },
    Scenario {
        name: "paused",
        about: "a machine that is stopped with a lock is not robbed",
        is_quick: false,
        is_mixed: false,
        run: paused::run,
    },
    Scenario {
        name: "garbage",
        about: "a machine writes garbage all over the segment: the others get errors, no more",
        is_quick: false,
        is_mixed: false,
        run: garbage::run,
    },
    Scenario {
        name: "crowd",
        about: "16 peers come and go, and no QEMU aborts",
        is_quick: false,
        is_mixed: false,
        run: crowd::run,
    },
    Scenario {
        name: "oversubscribed",
        about: "more virtual CPUs than CPUs: locks that sleep against locks that spin",
        is_quick: false,
        is_mixed: false,
        run: oversubscribed::run,
    },
];

/// The upper one of two, where their number is even.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
