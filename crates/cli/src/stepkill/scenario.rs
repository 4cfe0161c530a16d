//! What the victim does when it is killed, and who else is there.

use std::fmt;

use clap::ValueEnum;

/// What the victim does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Operation {
    /// Takes the lock, does a section, gives it up.
    Section,
    /// Takes the lock to read, and gives it up.
    Read,
    /// Gives up the lock that it has.
    Release,
    /// Waits for the lock for a while, in vain.
    LeaveAwake,
    /// Waits, and falls asleep, for a while, in vain.
    LeaveAsleep,
    /// Registers its thread.
    Register,
    /// Ends its thread, which is registered.
    ThreadExit,
    /// Detaches from the segment, registered.
    Detach,
    /// Creates an object.
    CreateObject,
    /// Creates a segment.
    CreateSegment,
    /// Not for a victim that is traced: breaks a section off, and dies.
    DieInside,
    /// Not for a victim that is traced: says that it is there, and takes the lock.
    Wait,
}

/// Which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LockKind {
    /// The robust mutex.
    Robust,
    /// The robust reader-writer lock; others than [`Operation::Read`] write.
    RobustRw,
    /// Named when it is taken.
    NamedAtOnce,
    /// Named one instruction later.
    NamedLate,
}

/// Whether somebody who lives has the lock when the victim comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    /// He gives it up when the victim has fallen asleep, or is dead.
    UntilAsleep,
    /// He gives it up when the victim is dead.
    UntilDead,
}

/// Who has died before the victim comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Nobody,
    /// Inside a section, with the pair torn.
    Owner,
    /// Asleep behind the owner.
    Waiter,
}

/// One situation, in which a victim is killed at every instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) operation: Operation,
    pub(super) lock: LockKind,
    pub(super) owner: Owner,
    pub(super) dead: Dead,
    /// Who sleep behind the owner before the victim comes.
    pub(super) before: u32,
    /// Who come and sleep when the victim is about to begin, and has the lock already.
    pub(super) at_begin: u32,
    /// Who come and sleep when the victim gets the lock.
    pub(super) when_held: u32,
    /// Who come and sleep when the victim sleeps.
    pub(super) behind: u32,
    /// Who come in the moment that the victim is killed.
    pub(super) at_death: u32,
}

const ALONE: Scenario = Scenario {
    name: "",
    operation: Operation::Section,
    lock: LockKind::Robust,
    owner: Owner::Nobody,
    dead: Dead::Nobody,
    before: 0,
    at_begin: 0,
    when_held: 0,
    behind: 0,
    at_death: 0,
};
const WAITER: Scenario = Scenario { owner: Owner::UntilAsleep, ..ALONE };

const WRITER: Scenario = Scenario { lock: LockKind::RobustRw, ..ALONE };
const READER: Scenario = Scenario { operation: Operation::Read, ..WRITER };

/// All scenarios.
pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "owner-alone", ..ALONE },
    Scenario { name: "owner-with-second-contender", at_death: 1, ..ALONE },
    Scenario { name: "owner-with-head-asleep", when_held: 1, ..ALONE },
    Scenario { name: "owner-with-queue", when_held: 3, ..ALONE },
    Scenario { name: "release-with-sleeper", operation: Operation::Release, at_begin: 1, ..ALONE },
    Scenario { name: "release-with-queue", operation: Operation::Release, at_begin: 3, ..ALONE },
    Scenario { name: "waiter-head", behind: 2, ..WAITER },
    Scenario { name: "waiter-middle", before: 1, behind: 1, ..WAITER },
    Scenario { name: "waiter-last", before: 2, ..WAITER },
    Scenario {
        name: "timeout-awake",
        operation: Operation::LeaveAwake,
        owner: Owner::UntilDead,
        behind: 1,
        ..ALONE
    },
    Scenario {
        name: "timeout-leaving",
        operation: Operation::LeaveAsleep,
        owner: Owner::UntilDead,
        before: 1,
        behind: 1,
        ..ALONE
    },
    Scenario { name: "repairer", dead: Dead::Owner, at_death: 1, ..ALONE },
    Scenario { name: "repairer-with-queue", dead: Dead::Owner, when_held: 2, ..ALONE },
    Scenario { name: "repairer-of-waiter", dead: Dead::Waiter, behind: 1, ..WAITER },
    Scenario { name: "write-lock", at_death: 1, ..WRITER },
    Scenario { name: "write-lock-with-queue", when_held: 2, ..WRITER },
    Scenario { name: "write-lock-waiting", owner: Owner::UntilAsleep, behind: 1, ..WRITER },
    Scenario { name: "write-lock-repairer", dead: Dead::Owner, at_death: 1, ..WRITER },
    Scenario { name: "read-lock", at_death: 1, ..READER },
    Scenario { name: "read-lock-with-writers", when_held: 2, ..READER },
    Scenario { name: "read-lock-waiting", owner: Owner::UntilAsleep, behind: 1, ..READER },
    Scenario { name: "registration", operation: Operation::Register, ..ALONE },
    Scenario { name: "thread-exit", operation: Operation::ThreadExit, ..ALONE },
    Scenario { name: "detach", operation: Operation::Detach, ..ALONE },
    Scenario { name: "object-creation", operation: Operation::CreateObject, ..ALONE },
    Scenario { name: "segment-creation", operation: Operation::CreateSegment, ..ALONE },
    Scenario { name: "control-name-at-once", lock: LockKind::NamedAtOnce, ..ALONE },
    Scenario { name: "control-late-name", lock: LockKind::NamedLate, ..ALONE },
];

impl Scenario {
    /// The scenario of that name.
    pub(super) fn named(name: &str) -> Result<&'static Self, String> {
        ALL.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
            format!("there is no such scenario; there are {}", names.join(", "))
        })
    }

    /// Whether it says something about this command, not about the locks.
    pub(super) fn is_control(&self) -> bool {
        matches!(self.lock, LockKind::NamedAtOnce | LockKind::NamedLate)
    }

    /// Whether it must fail.
    pub(super) fn is_to_be_caught(&self) -> bool {
        self.lock == LockKind::NamedLate
    }

    /// The most sections that the victim and those who died before it may have counted.
    pub(super) fn unsure_sections(&self) -> u64 {
        let victim = matches!(self.operation, Operation::Section | Operation::Release);
        u64::from(victim) + u64::from(self.dead == Dead::Owner)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
