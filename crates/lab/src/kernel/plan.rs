//! What is run.

use std::time::Duration;

use crosslock_baremetal::options::{Kick, Lock, Options, Task};
use vmlab::Cpu;

use super::machines::Place;
use super::outcome::Outcome;

/// One boot of the kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is for.
    pub name: String,
    /// Where.
    pub place: Place,
    /// The kernel's command line, where there is one.
    pub options: Options,
    /// The hypervisor does not offer to wake halted CPUs.
    pub hide_unhalt: bool,
    /// The hypervisor says that CPUs are dedicated.
    pub realtime: bool,
    /// With the locks' own checks.
    pub checked: bool,
    /// How long it may take.
    pub limit: Duration,
    /// What must come of it, besides that the kernel finds no failure.
    pub expect: Expect,
}

/// What must come of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// No more than that the kernel finds no failure.
    Passes,
    /// A control: the kernel fails.
    Fails,
    /// So many sections of tasks under each lock in each form, some of them of all CPUs at once; with interrupts in between.
    Sections(u64),
    /// The kernel chooses this algorithm, for a reason with these words, and uses it.
    Chooses(Lock, &'static str),
    /// The paravirtual lock does so many times what native and ticket do, and kicks and halts go together.
    Pays(f64),
    /// The paravirtual lock does not less than this part of what the native one does.
    Keeps(f64),
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few minutes.
    Small,
    /// A million sections of each lock in each form.
    Full,
}

/// Turns of the spin loop before a waiter halts. Under an emulated KVM a turn takes some 200 ns, so that the usual 32768 are
/// longer than a time slice.
const SPIN: u32 = 512;

/// Until each virtual CPU has been preempted once, the fair locks are fast.
const WARM_UP_MS: u32 = 500;

/// How many more kicks than halts there may be, or the other way round: those on their way when a measurement begins or
/// ends, and kicks that came before their HLT and were merged with the next, for each CPU.
const IN_FLIGHT_PER_CPU: u64 = 2;

const NATIVE: &str = Lock::Queued.name();
const PARAVIRTUAL: &str = Lock::Paravirtual.name();
const TICKET: &str = Lock::Ticket.name();

impl Expect {
    /// Why `outcome` is not what is expected.
    pub(super) fn problems(self, outcome: &Outcome) -> Vec<String> {
        let mut problems = Vec::new();
        match self {
            Self::Passes | Self::Fails => {}
            Self::Sections(least) => {
                for run in &outcome.runs {
                    if run.sections < least {
                        problems.push(format!("{} {}: only {} sections", run.lock, run.form, run.sections));
                    }
                    if run.crowded == 0 {
                        problems.push(format!("{} {}: never by all CPUs at once", run.lock, run.form));
                    }
                    if run.ticks == 0 && run.ns > 100_000_000 {
                        problems.push(format!("{} {}: no timer interrupts", run.lock, run.form));
                    }
                }
                if outcome.runs.is_empty() {
                    problems.push("no lock was used".into());
                }
            }
            Self::Chooses(lock, words) => {
                let name = lock.name();
                let chosen = outcome.boot.as_ref().map(|boot| (boot.chosen.as_str(), boot.reason.as_str()));
                if !chosen.is_some_and(|(chosen, reason)| chosen == name && reason.contains(words)) {
                    problems.push(format!("the kernel chose {chosen:?}, not {name} because of {words:?}"));
                }
                if outcome.runs.is_empty() || outcome.runs.iter().any(|run| run.lock != name) {
                    problems.push(format!("the kernel did not use {name}"));
                }
            }
            Self::Pays(factor) => {
                for other in [NATIVE, TICKET] {
                    problems.extend(compare(outcome, PARAVIRTUAL, other, factor));
                }
                for run in outcome.runs_of(PARAVIRTUAL) {
                    if run.halts == 0
                        || run.halts.abs_diff(run.kicks) > IN_FLIGHT_PER_CPU * u64::from(run.cpus)
                    {
                        problems.push(format!("{} halts, {} kicks", run.halts, run.kicks));
                    }
                }
                if outcome.runs_of(PARAVIRTUAL).all(|run| run.halts == 0) {
                    problems.push(format!("no waiter for {PARAVIRTUAL} has halted"));
                }
            }
            Self::Keeps(part) => problems.extend(compare(outcome, PARAVIRTUAL, NATIVE, part)),
        }
        problems
    }
}

/// Complains where `one` does not do `factor` times what `other` does.
fn compare(outcome: &Outcome, one: &str, other: &str, factor: f64) -> Option<String> {
    match (outcome.rate(one), outcome.rate(other)) {
        (Some(fast), Some(slow)) if fast >= factor * slow => None,
        (Some(fast), Some(slow)) => Some(format!(
            "{one} does {fast:.0}/s, {other} {slow:.0}/s: {:.2} times, not {factor}",
            fast / slow
        )),
        _ => Some(format!("{one} and {other} were not measured")),
    }
}

impl Step {
    fn new(name: impl Into<String>, place: Place, options: Options) -> Self {
        Self {
            name: name.into(),
            place,
            options,
            hide_unhalt: false,
            realtime: false,
            checked: false,
            limit: Duration::from_secs(120),
            expect: Expect::Passes,
        }
    }

    fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    fn checked(mut self) -> Self {
        self.checked = true;
        self
    }
}

/// All steps.
#[must_use]
pub fn plan(effort: Effort) -> Vec<Step> {
    let tests = |name| Step::new(name, Place::Hosted, Options::default());
    let mut steps = vec![tests("tests"), tests("tests, with debug checks").checked()];
    // In small one processor of each architecture will do.
    for cpu in Cpu::ALL.into_iter().filter(|&cpu| effort == Effort::Full || cpu != Cpu::Aarch64Max) {
        steps.extend(checks(Place::Tcg { cpu }, effort));
    }
    steps.extend(checks(Place::Kvm { on: 2 }, effort));
    steps.extend(choices());
    steps.extend(measurements(effort));
    steps
}

/// All that is checked of the locks at a place.
fn checks(place: Place, effort: Effort) -> Vec<Step> {
    let is_emulated = matches!(place, Place::Tcg { .. });
    let hz = if is_emulated { 1000 } else { 100 };
    let sections = match effort {
        Effort::Small => 20_000,
        Effort::Full => 1_000_000,
    };
    let mut steps = Vec::new();
    let options = |task, cpus| Options { task, cpus, hz, spin: SPIN, kick: Kick::Ipi, ..Options::default() };
    for cpus in [1, 2, 4] {
        let ms = match (effort, cpus) {
            (Effort::Small, _) => 300,
            (Effort::Full, 1) => 30_000,
            (Effort::Full, _) => 12_000 / cpus,
        };
        let mut options = Options { sections, ms, ..options(Task::Load, cpus) };
        if !is_emulated && cpus > 2 {
            // More handlers than that, and they would have the fair locks all the time.
            options.hz = 10;
        }
        let mut step = Step::new(format!("load, {cpus} CPUs"), place, options);
        step.limit = Duration::from_secs(580);
        // In small nobody asks how fast: on a machine with other work to do even two CPUs may be slow.
        let least = if effort == Effort::Full || cpus == 1 { sections } else { 1 };
        steps.push(step.expect(Expect::Sections(least)));
    }
    // Fair locks with more waiters than CPUs take their time.
    let rounds = if is_emulated && effort == Effort::Full { 20 } else { 5 };
    let nesting = Options { rounds, ..options(Task::Nesting, 4) };
    steps.push(Step::new("waits nested past the nodes", place, nesting));
    steps.push(Step::new("a kick", place, options(Task::Kick, 2)));
    if place == (Place::Tcg { cpu: Cpu::Aarch64Max }) {
        // What finds mistakes is the same for both processors of one architecture.
        return steps;
    }
    steps.push(Step::new("control: a lost kick", place, options(Task::LostKick, 2)));
    let broken = Options { ms: 200, ..options(Task::Broken, 2) };
    steps.push(Step::new("control: a lock that does not lock", place, broken));
    if place == (Place::Tcg { cpu: Cpu::CortexA57 }) && effort == Effort::Small {
        // What follows is for a kernel of its own, and the checks in it are those of the other architecture.
        return steps;
    }
    steps
        .push(Step::new("control: guards in the wrong order", place, options(Task::WrongOrder, 1)).checked());
    steps.push(Step::new("control: a deadlock in a handler", place, options(Task::Deadlock, 1)).checked());
    let unchecked = Step::new("control: the same order, unchecked", place, options(Task::WrongOrder, 1));
    steps.push(unchecked.expect(Expect::Fails));
    steps
}

/// Every rule by which the kernel chooses.
fn choices() -> Vec<Step> {
    let kvm = Place::Kvm { on: 2 };
    // Where nothing tells of a hypervisor.
    let arm = Place::Tcg { cpu: Cpu::CortexA57 };
    let options = Options {
        lock: Some(Lock::Chosen),
        cpus: 2,
        hz: 100,
        sections: 2000,
        ms: 200,
        spin: SPIN,
        ..Options::default()
    };
    let step = |name: &str, place, options, lock, words| {
        Step::new(format!("choice: {name}"), place, options).expect(Expect::Chooses(lock, words))
    };
    let mut hidden = step("PV_UNHALT hidden", kvm, options, Lock::Tas, "cannot be woken");
    hidden.hide_unhalt = true;
    let mut realtime = step("real-time hint", kvm, options, Lock::Queued, "real-time");
    realtime.realtime = true;
    vec![
        step("no hypervisor", arm, options, Lock::Queued, "nothing preempts"),
        step("kick=ipi", arm, Options { kick: Kick::Ipi, ..options }, Lock::Paravirtual, "can be woken"),
        step("KVM", kvm, options, Lock::Paravirtual, "can be woken"),
        step("nopvspin", kvm, Options { nopvspin: true, ..options }, Lock::Queued, "nopvspin"),
        step("one CPU", kvm, Options { cpus: 1, ..options }, Lock::Queued, "single"),
        hidden,
        realtime,
    ]
}

/// What it costs each lock that virtual CPUs are preempted.
fn measurements(effort: Effort) -> Vec<Step> {
    let more: u32 = match effort {
        Effort::Small => 1,
        Effort::Full => 5,
    };
    // Two CPUs are preempted by whatever else this machine does, so that the short rounds say too little to judge by.
    let keeps = match effort {
        Effort::Small => Expect::Passes,
        Effort::Full => Expect::Keeps(0.8),
    };
    let step = |cpus, on, rounds, ms, expect| {
        let rounds = rounds * more;
        let options = Options {
            task: Task::Throughput,
            cpus,
            hz: 100,
            ms,
            warm_up_ms: WARM_UP_MS,
            rounds,
            spin: SPIN,
            ..Options::default()
        };
        let mut step = Step::new(format!("throughput, {cpus} on {on}"), Place::Kvm { on }, options);
        step.limit = Duration::from_secs(u64::from(more) * 60);
        step.expect(expect)
    };
    let mut steps = vec![step(2, 2, 3, 500, keeps), step(4, 2, 1, 2000, Expect::Pays(20.0))];
    if effort == Effort::Full {
        steps.push(step(1, 1, 1, 500, Expect::Passes));
        steps.push(step(4, 1, 1, 2000, Expect::Passes));
    }
    steps
}
