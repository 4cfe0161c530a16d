//! The kernel's command line: what is to be run, and how.
//!
//! ```
//! use crosslock_baremetal::options::{Options, Task};
//! let options = Options::parse("task=load cpus=4 hz=1000 sections=1000 nopvspin").unwrap();
//! assert_eq!((options.task, options.cpus, options.nopvspin), (Task::Load, 4, true));
//! assert_eq!(Options::parse(options.to_string().as_str()).unwrap(), options);
//! assert!(Options::parse("cpus=many").is_err());
//! ```

use core::fmt;

/// Names for the values of an enum.
macro_rules! named {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $each:literal])+ $variant:ident = $text:literal,)* }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $each])+ $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name on the command line and in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// What the kernel does.
    Task {
        /// Each lock in each form, under load with interrupts on, checked.
        Load = "load",
        /// Waits nested through all nodes of a CPU, and past them.
        Nesting = "nesting",
        /// Each lock for a fixed time: how many sections?
        Throughput = "throughput",
        /// A halted waiter that is kicked.
        Kick = "kick",
        /// Control: the same, with the kick lost. It must be found stuck.
        LostKick = "lost-kick",
        /// Control: guards dropped in the wrong order. It must be reported (`debug-checks`).
        WrongOrder = "wrong-order",
        /// Control: a lock taken in a handler that has interrupted its holder. It must be reported, with both places
        /// (`debug-checks`).
        Deadlock = "deadlock",
        /// Control: a lock that does not lock. The load must find it out.
        Broken = "broken",
    }
}

named! {
    /// A lock algorithm.
    Lock {
        /// Test-and-set with backoff.
        Tas = "tas",
        /// Ticket lock.
        Ticket = "ticket",
        /// MCS queue lock.
        Mcs = "mcs",
        /// The queued spin lock, native.
        Queued = "qspinlock",
        /// The queued spin lock, paravirtual.
        Paravirtual = "pvqspinlock",
        /// The lock of a kernel with one CPU.
        Up = "up",
        /// Of the queued ones and test-and-set, the one that the kernel chooses at boot.
        Chosen = "chosen",
    }
}

named! {
    /// How a waiting CPU that has halted is woken.
    Kick {
        /// By hypercall if the hypervisor offers it; else waiters do not halt.
        Auto = "auto",
        /// By an interrupt, where the hypervisor offers nothing better. It also says that there is one, which not every
        /// architecture tells.
        Ipi = "ipi",
    }
}

/// All options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub task: Task,
    /// Only this lock; otherwise each algorithm that is made for so many CPUs.
    pub lock: Option<Lock>,
    /// CPUs to start, the first among them.
    pub cpus: u32,
    /// Timer interrupts a second on each CPU.
    pub hz: u32,
    /// Critical sections for each lock and form, all CPUs together. What `ms` is too short for is done by two CPUs at a time.
    pub sections: u64,
    /// How long all CPUs take part, at most, for each lock and form, in milliseconds.
    pub ms: u32,
    /// Time before that does not count in measurements, in milliseconds.
    pub warm_up_ms: u32,
    /// How often each measurement is made, in turns with the others.
    pub rounds: u32,
    /// Turns of the spin loop before a waiter halts.
    pub spin: u32,
    /// How waiters are woken.
    pub kick: Kick,
    /// The native lock, whatever the hypervisor offers.
    pub nopvspin: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            task: Task::Load,
            lock: None,
            cpus: 1,
            hz: 1000,
            sections: 10_000,
            ms: 1000,
            warm_up_ms: 0,
            rounds: 1,
            spin: 1 << 15,
            kick: Kick::Auto,
            nopvspin: false,
        }
    }
}

/// A word of the command line that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The word.
    pub word: &'a str,
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: no such option, or no such value for it", self.word)
    }
}

impl core::error::Error for Unknown<'_> {}

impl Options {
    /// Reads a command line; what it does not say stays as it is by default.
    ///
    /// # Errors
    /// The first word that is no option, or whose value makes no sense.
    pub fn parse(line: &str) -> Result<Self, Unknown<'_>> {
        let mut options = Self::default();
        for word in line.split_ascii_whitespace() {
            options.set(word).ok_or(Unknown { word })?;
        }
        Ok(options)
    }

    fn set(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            None if word == "nopvspin" => self.nopvspin = true,
            None => return None,
            Some(("task", name)) => self.task = Task::named(name)?,
            Some(("lock", name)) => self.lock = Some(Lock::named(name)?),
            Some(("kick", name)) => self.kick = Kick::named(name)?,
            Some(("cpus", count)) => self.cpus = count.parse().ok().filter(|&count| count > 0)?,
            Some(("hz", number)) => self.hz = number.parse().ok()?,
            Some(("sections", number)) => self.sections = number.parse().ok()?,
            Some(("ms", number)) => self.ms = number.parse().ok()?,
            Some(("warm_up_ms", number)) => self.warm_up_ms = number.parse().ok()?,
            Some(("rounds", number)) => self.rounds = number.parse().ok()?,
            Some(("spin", number)) => self.spin = number.parse().ok()?,
            Some(_) => return None,
        }
        Some(())
    }

    /// The locks that it is about.
    pub fn locks(&self) -> impl Iterator<Item = Lock> + '_ {
        let is_meant = |lock: &Lock| match (self.lock, lock) {
            (Some(only), lock) => only == *lock,
            (None, Lock::Chosen) => false,
            (None, Lock::Up) => self.cpus == 1,
            (None, _) => true,
        };
        Lock::ALL.iter().copied().filter(is_meant)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, lock, cpus, hz, sections, ms, warm_up_ms, rounds, spin, kick, nopvspin } = self;
        write!(
            f,
            "task={task} cpus={cpus} hz={hz} sections={sections} ms={ms} warm_up_ms={warm_up_ms} rounds={rounds} spin={spin} kick={kick}"
        )?;
        if let Some(lock) = lock {
            write!(f, " lock={lock}")?;
        }
        if *nopvspin { f.write_str(" nopvspin") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn every_option_survives_the_round_trip() {
        for &task in Task::ALL {
            for lock in [None, Some(Lock::Mcs)] {
                let options = Options {
                    task,
                    lock,
                    cpus: 7,
                    hz: 0,
                    sections: 1 << 40,
                    ms: 1,
                    warm_up_ms: 2,
                    rounds: 3,
                    spin: 512,
                    kick: Kick::Ipi,
                    nopvspin: lock.is_some(),
                };
                assert_eq!(Options::parse(&options.to_string()), Ok(options));
            }
        }
    }

    #[test]
    fn nonsense_is_named() {
        for word in ["task=sleep", "cpus=0", "cpus=-1", "pvspin", "quiet=1", "ms="] {
            let line = std::format!("task=load {word} hz=5");
            assert_eq!(Options::parse(&line), Err(Unknown { word }));
        }
    }
}
