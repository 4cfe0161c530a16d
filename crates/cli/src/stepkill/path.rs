//! The path that a victim takes through its operation, and how to get to a place on it quickly.
//!
//! To step to instruction `k` takes `k` stops, so all of them together take the square. Instead the victim
//! runs to a breakpoint at an *anchor*, an instruction shortly before that it seldom executes, and steps from
//! there.
//!
//! One that runs is ten thousand times as fast as one that steps, so what depends on the clock goes another way. For
//! those places it *hops*: it steps through code that is new to it, and runs through what it has done before. It
//! passes the clock as slowly as in the run that recorded the path, and the turns of loops quickly.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

/// When the victim is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// After so many instructions of the operation.
    After(usize),
    /// The first time that it sleeps.
    Asleep,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(steps) => write!(f, "{steps}"),
            Self::Asleep => f.write_str("asleep"),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "asleep" => Ok(Self::Asleep),
            number => {
                number.parse().map(Self::After).map_err(|_| "a number of instructions, or `asleep`".into())
            }
        }
    }
}

/// The addresses of all instructions of an operation, in the order of one run through it.
#[derive(Debug)]
pub(super) struct Path {
    addresses: Vec<u64>,
    /// How often each has been executed by then, itself included; 0: no anchor.
    visits: Vec<u32>,
    sleep: Option<u64>,
}

/// Where to let the victim run to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) address: u64,
    /// It is there at the so-manieth visit.
    pub(super) visit: u32,
    /// Its index on the path.
    pub(super) index: usize,
}

impl Path {
    /// `sleep` is the address of the system call in which the operation slept first, if it did.
    pub(super) fn new(addresses: Vec<u64>, sleep: Option<u64>) -> Self {
        // A step is one turn of a repeated string instruction, but a breakpoint stops it once. And at the first
        // instruction the victim stands already.
        let repeated = addresses.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let unfit: HashSet<u64> = repeated.chain(addresses.first().copied()).collect();
        let mut counts = HashMap::<u64, u32>::new();
        let visits = addresses
            .iter()
            .map(|address| {
                let count = counts.entry(*address).or_default();
                *count += 1;
                if unfit.contains(address) { 0 } else { *count }
            })
            .collect();
        Self { addresses, visits, sleep }
    }

    /// Where it stands after `steps` instructions.
    pub(super) fn address(&self, steps: usize) -> Option<u64> {
        self.addresses.get(steps).copied()
    }

    /// The system call in which it slept first.
    pub(super) fn sleep(&self) -> Option<u64> {
        self.sleep
    }

    /// All kill points, in order.
    pub(super) fn points(&self) -> impl Iterator<Item = Point> {
        (0..self.addresses.len()).map(Point::After).chain(self.sleep.map(|_| Point::Asleep))
    }

    /// The way to `steps` with the fewest stops, if it is shorter than stepping.
    pub(super) fn anchor(&self, steps: usize) -> Option<Anchor> {
        let mut best = (steps, None);
        for index in (0..=steps.min(self.addresses.len().saturating_sub(1))).rev() {
            let behind = steps - index;
            if behind >= best.0 {
                break;
            }
            let visit = self.visits[index];
            let stops = behind + visit as usize;
            if visit > 0 && stops < best.0 {
                best = (stops, Some(Anchor { address: self.addresses[index], visit, index }));
            }
        }
        best.1
    }

    /// From index `from`, on the way to `steps`: where to run to next, if not a step is as good. The visits are counted
    /// from there.
    pub(super) fn hop(&self, from: usize, steps: usize) -> Option<Anchor> {
        let steps = steps.min(self.addresses.len().saturating_sub(1));
        let new = (from + 1..=steps).find(|&index| self.visits[index] == 1);
        if let Some(index) = new {
            let anchor = Anchor { address: self.addresses[index], visit: 1, index };
            return (index > from + SHORTEST_HOP).then_some(anchor);
        }
        let mut counts = HashMap::<u64, u32>::new();
        let mut best = (steps.saturating_sub(from), None);
        for index in from + 1..=steps {
            let address = self.addresses[index];
            let visit = counts.entry(address).or_default();
            *visit += 1;
            let stops = steps - index + *visit as usize;
            if self.visits[index] > 0 && stops < best.0 && index > from + SHORTEST_HOP {
                best = (stops, Some(Anchor { address, visit: *visit, index }));
            }
        }
        best.1
    }
}

/// Shorter stretches are stepped through: reading the clock twice takes the time that it took in steps.
const SHORTEST_HOP: usize = 150;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_rare_and_near() {
        // Straight, a loop of two, straight.
        let straight = (100..110).chain((0..50).flat_map(|_| [7, 8])).chain(200..210);
        let path = Path::new(straight.collect(), None);
        assert_eq!(path.anchor(0), None);
        assert_eq!(path.anchor(1), None, "one step is as quick");
        assert_eq!(path.anchor(9), Some(Anchor { address: 109, visit: 1, index: 9 }));
        assert_eq!(path.anchor(13), Some(Anchor { address: 8, visit: 2, index: 13 }));
        assert_eq!(path.anchor(30).map(|anchor| (anchor.visit, anchor.index)), Some((11, 30)));
        assert_eq!(path.anchor(115), Some(Anchor { address: 205, visit: 1, index: 115 }));
        for steps in 0..120 {
            let Some(anchor) = path.anchor(steps) else { continue };
            let visits = path.addresses[..=anchor.index].iter().filter(|&&other| other == anchor.address);
            assert_eq!(visits.count(), anchor.visit as usize);
        }
    }

    #[test]
    fn hops_step_through_what_is_new_and_run_through_loops() {
        let path = (100..110).chain((0..500).flat_map(|_| [7, 8])).chain(200..210);
        let path = Path::new(path.collect(), None);
        assert_eq!(path.hop(0, 1000), None, "the next is new");
        assert_eq!(path.hop(11, 1015), Some(Anchor { address: 200, visit: 1, index: 1010 }));
        assert_eq!(path.hop(1010, 1015), None);
        assert_eq!(path.hop(11, 600).map(|anchor| (anchor.visit, anchor.index)), Some((294, 599)));
        assert_eq!(path.hop(500, 600), None, "not worth it");
    }

    #[test]
    fn a_repeated_instruction_is_no_anchor() {
        let path = Path::new(vec![1, 9, 2, 3, 3, 3, 3, 3, 4], Some(9));
        assert_eq!(path.anchor(7), Some(Anchor { address: 2, visit: 1, index: 2 }));
        assert_eq!(path.anchor(8), Some(Anchor { address: 4, visit: 1, index: 8 }));
        assert_eq!(path.points().count(), 10);
    }

    #[test]
    fn points_survive_the_round_trip() {
        for point in [Point::After(0), Point::After(77), Point::Asleep] {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert!("soon".parse::<Point>().is_err());
    }
}
