//! What the kernel says on its serial port: one [`Line`] of JSON each, beside lines for people.

use core::fmt;

use crosslock_core::Event;
use heapless::String;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Words in a report.
pub type Text = String<160>;

/// A line that is meant for programs. It begins with `{`; others do not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Line {
    /// The first: what the kernel found.
    Boot(Boot),
    /// A check has passed or failed.
    Check(Check),
    /// A lock was used for a while.
    Run(Run),
    /// The last: how many checks and runs failed.
    End {
        /// So many.
        failures: u32,
    },
}

/// What the kernel found when it booted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// Who runs it, by CPUID: `KVMKVMKVM`, `TCGTCGTCGTCG`, or nothing.
    pub hypervisor: Text,
    /// CPUs that have come up.
    pub cpus: u32,
    /// The rate of the clock (time stamp counter, generic timer), in kHz.
    pub clock_khz: u64,
    /// Whether the hypervisor says that it wakes halted CPUs (`KVM_FEATURE_PV_UNHALT`).
    pub unhalt: bool,
    /// Whether the hypervisor tells who is preempted (steal time).
    pub steal_time: bool,
    /// The algorithm behind queued locks, by [`crosslock_core::select`]: its name.
    pub chosen: Text,
    /// Why.
    pub reason: Text,
}

/// A check, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: Text,
    /// About which lock, or nothing.
    pub lock: Text,
    /// Whether it has passed.
    pub passed: bool,
    /// What was seen.
    pub seen: Text,
}

/// A lock under load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The lock's name.
    pub lock: Text,
    /// The form in which tasks took it.
    pub form: Text,
    /// CPUs that took part.
    pub cpus: u32,
    /// Critical sections of tasks.
    pub sections: u64,
    /// Of them, those while all CPUs took part; the others were done by two at a time.
    pub crowded: u64,
    /// Those of interrupt handlers.
    pub interrupts: u64,
    /// Sections that found another one inside, or what it guards not as the last one left it; 0 is right.
    pub violations: u64,
    /// How long all CPUs took part, in nanoseconds.
    pub ns: u64,
    /// The fewest sections that a CPU had meanwhile.
    pub least: u64,
    /// The most.
    pub most: u64,
    /// Timer interrupts meanwhile, on all CPUs.
    pub ticks: u64,
    /// How often a waiter halted.
    pub halts: u64,
    /// How often one was kicked.
    pub kicks: u64,
    /// What the lock counted.
    pub events: Events,
}

/// Counters by [`Event`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Events(pub [u64; Event::COUNT]);

impl Events {
    /// One of them.
    #[must_use]
    pub const fn of(&self, event: Event) -> u64 {
        self.0[event.index()]
    }
}

/// As a map from the events' names, without those that did not happen.
impl Serialize for Events {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let happened = || Event::ALL.iter().filter(|event| self.of(**event) != 0);
        let mut map = serializer.serialize_map(Some(happened().count()))?;
        for event in happened() {
            map.serialize_entry(event.name(), &self.of(*event))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Events;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names of events to numbers")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Events, M::Error> {
                let mut events = Events([0; Event::COUNT]);
                while let Some((name, count)) = map.next_entry::<String<32>, u64>()? {
                    let event = Event::ALL.iter().find(|event| event.name() == name);
                    let event =
                        event.ok_or_else(|| M::Error::custom(format_args!("no event is called {name}")))?;
                    events.0[event.index()] = count;
                }
                Ok(events)
            }
        }

        deserializer.deserialize_map(Names)
    }
}

/// Words for a report; what is too long is cut.
#[must_use]
pub fn text(words: fmt::Arguments<'_>) -> Text {
    struct Cut(Text);

    impl fmt::Write for Cut {
        fn write_str(&mut self, words: &str) -> fmt::Result {
            // Fails where it is full: there is nothing to be done then.
            words.chars().try_for_each(|c| self.0.push(c)).map_err(|_| fmt::Error)
        }
    }

    let mut cut = Cut(Text::new());
    // An error means that the rest was cut.
    let _ = fmt::write(&mut cut, words);
    cut.0
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn lines_survive_the_round_trip() {
        let mut events = [0; Event::COUNT];
        events[Event::PvWaitHead.index()] = u64::MAX;
        let run = Run {
            lock: text(format_args!("pvqspinlock")),
            form: text(format_args!("{}", "long ".repeat(100))),
            cpus: 4,
            sections: 1,
            crowded: 1,
            interrupts: 2,
            violations: 3,
            ns: 4,
            least: 5,
            most: 6,
            ticks: 7,
            halts: 8,
            kicks: 9,
            events: Events(events),
        };
        for line in [Line::Run(run), Line::End { failures: 0 }] {
            let json = serde_json::to_string(&line).unwrap();
            assert!(json.starts_with('{'));
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "{json}");
        }
    }

    #[test]
    fn unknown_events_are_refused() {
        let error = serde_json::from_str::<Events>(r#"{"pv_coffee":1}"#).unwrap_err();
        assert!(error.to_string().contains("pv_coffee"), "{error}");
        assert_eq!(serde_json::from_str::<Events>("{}").unwrap(), Events([0; Event::COUNT]));
    }
}
