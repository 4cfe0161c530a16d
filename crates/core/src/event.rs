//! Event counters, under the names that the Linux kernel gives them where it has them.

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// Something countable that happened on a slow path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nCounted as `", $name, "`.")] $variant,)*
        }

        impl Event {
            /// Every event, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// How many events there are: the size of an array of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name in the kernel (`/sys/kernel/debug/lock_event_counts`).
            ///
            /// ```
            /// assert_eq!(crosslock_core::Event::PvKickUnlock.name(), "pv_kick_unlock");
            /// ```
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Position of this event's counter in an array of [`Event::COUNT`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

events! {
    /// The lock was taken through the pending bit, without a node.
    LockPending = "lock_pending",
    /// A waiter queued.
    LockSlowpath = "lock_slowpath",
    /// A wait nested in another: second node in use.
    LockUseNode2 = "lock_use_node2",
    /// Third node in use.
    LockUseNode3 = "lock_use_node3",
    /// Fourth node in use.
    LockUseNode4 = "lock_use_node4",
    /// No node left (or no CPU number): spun on trylock.
    LockNoNode = "lock_no_node",
    /// Entries of the lock hash looked at, beyond the count of lookups: the mean number of hops.
    PvHashHops = "pv_hash_hops",
    /// An unlock woke the queue head.
    PvKickUnlock = "pv_kick_unlock",
    /// A waiter came back from `pv_wait` because it had been kicked.
    PvKickWake = "pv_kick_wake",
    /// Sum of the nanoseconds spent in kicking; divide by `pv_kick_unlock`.
    PvLatencyKick = "pv_latency_kick",
    /// Sum of the nanoseconds between kick and wake; divide by `pv_kick_wake`.
    PvLatencyWake = "pv_latency_wake",
    /// The lock was taken past the queue.
    PvLockStealing = "pv_lock_stealing",
    /// A queued waiter woke although it was not yet its turn.
    PvSpuriousWakeup = "pv_spurious_wakeup",
    /// The queue head had to sleep again, because the lock was stolen.
    PvWaitAgain = "pv_wait_again",
    /// A waiter slept early, because its predecessor was not running.
    PvWaitEarly = "pv_wait_early",
    /// The queue head slept.
    PvWaitHead = "pv_wait_head",
    /// A waiter that is not the head slept.
    PvWaitNode = "pv_wait_node",
    /// A sleeper found by itself, when its longest sleep was over, that it had been kicked. The kernel has no such thing;
    /// where a kick travels through a doorbell and an agent, it can be late.
    PvKickLate = "pv_kick_late",
}

impl Event {
    /// The event of using node `index` of a CPU; the first node is not counted.
    pub(crate) const fn use_node(index: usize) -> Option<Self> {
        match index {
            1 => Some(Self::LockUseNode2),
            2 => Some(Self::LockUseNode3),
            3 => Some(Self::LockUseNode4),
            _ => None,
        }
    }
}
