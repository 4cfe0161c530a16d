//! What must be true when the victim is dead and the others have done their work.

use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context as _;
use crosslock::{Liveness, Segment};
use crosslock_core::primitive::Ordering;

use super::crew::Crew;
use super::lock::{CrashLock, NAME, Section};
use super::victim::{OBJECT, PARTICIPANTS, SEGMENT, options};

/// What is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Threads that did not finish their work.
    pub(super) stuck: u32,
    /// Failures of the lock to exclude, to tell of a death, to count.
    pub(super) violations: u32,
    /// Slots, objects and memory that nobody gets any more.
    pub(super) leaks: u32,
    /// Owners that learned of a death: not wrong.
    pub(super) recoveries: u32,
    /// For people.
    pub(super) told: Vec<String>,
}

impl Findings {
    pub(super) fn is_bad(&self) -> bool {
        self.stuck > 0 || self.violations > 0 || self.leaks > 0
    }

    pub(super) fn stuck(&mut self, told: impl Into<String>) {
        self.stuck += 1;
        self.told.push(told.into());
    }

    fn violation(&mut self, told: impl Into<String>) {
        self.violations += 1;
        self.told.push(told.into());
    }

    fn leak(&mut self, told: impl Into<String>) {
        self.leaks += 1;
        self.told.push(told.into());
    }

    /// The others finish their work, see nothing torn, and no section is lost; false if they are stuck.
    pub(super) fn survivors<L: CrashLock>(
        &mut self,
        crew: &mut Crew,
        segment: &Segment,
        unsure: u64,
        bound: Duration,
    ) -> anyhow::Result<bool> {
        crew.let_go();
        crew.worker::<L>()?;
        let collected = crew.collect(bound)?;
        let mut sections = 0;
        for tally in collected.tallies {
            match tally {
                Ok(tally) => {
                    sections += tally.sections;
                    self.recoveries += tally.recoveries;
                    if tally.torn > 0 {
                        self.violation(format!(
                            "{} times the pair was torn, and nobody had died",
                            tally.torn
                        ));
                    }
                }
                Err(error) => self.violation(format!("a survivor cannot go on: {error:#}")),
            }
        }
        if collected.stuck > 0 {
            let stuck = collected.stuck;
            self.stuck(format!("{stuck} survivors did not finish their work within {bound:?}"));
            return Ok(false);
        }
        if self.is_bad() {
            return Ok(true);
        }
        self.count::<L>(segment, sections..=sections + unsure)?;
        Ok(true)
    }

    /// All sections have left their mark.
    fn count<L: CrashLock>(
        &mut self,
        segment: &Segment,
        expected: std::ops::RangeInclusive<u64>,
    ) -> anyhow::Result<()> {
        let look = || -> anyhow::Result<_> {
            let lock = L::open(segment)?;
            let guard = lock.lock(None)?.context("a wait without end has ended without the lock")?;
            let words = [0, 1].map(|word| guard.words()[word].load(Ordering::Relaxed));
            Ok((words, guard.owner_died()))
        };
        // In a thread of its own, which gives its slot back.
        let looked = std::thread::scope(|scope| scope.spawn(look).join());
        let ([first, second], owner_died) = looked.ok().context("the auditor panicked")??;
        if first != second || owner_died {
            self.violation(format!("in the end the pair is {first}, {second}; owner died: {owner_died}"));
        }
        if !expected.contains(&first) {
            let (low, high) = expected.into_inner();
            self.violation(format!("{first} sections were counted, {low} to {high} were done"));
        }
        Ok(())
    }

    /// As many participants as there are slots can register.
    pub(super) fn slots(&mut self, segment: &Segment) -> anyhow::Result<()> {
        let slots = usize::try_from(PARTICIPANTS)?;
        let all_registered = Barrier::new(slots + 1);
        let (sender, registered) = channel();
        let alive = std::thread::scope(|scope| {
            for _ in 0..slots {
                let sender = sender.clone();
                let all_registered = &all_registered;
                scope.spawn(move || {
                    // The receiver outlives this scope.
                    let _ = sender.send(segment.register());
                    all_registered.wait();
                });
            }
            for refused in registered.iter().take(slots).filter_map(Result::err) {
                self.leak(format!("a slot is lost: {refused}"));
            }
            let participants = segment.participants();
            all_registered.wait();
            participants
        })?;
        let alive = alive.iter().filter(|other| other.liveness == Liveness::Alive).count();
        if alive != slots && self.leaks == 0 {
            self.leak(format!("{slots} are registered, {alive} are alive"));
        }
        Ok(())
    }

    /// The objects are those that there should be, and the heap has lost nothing; `heap_used` is with `OBJECT`.
    pub(super) fn objects<L: CrashLock>(
        &mut self,
        segment: &Segment,
        heap_used: usize,
    ) -> anyhow::Result<()> {
        for object in segment.objects() {
            if ![NAME, OBJECT].contains(&&*object.name) {
                self.leak(format!("there is an object {:?}", object.name));
            }
        }
        if let Err(error) = L::create(segment, OBJECT) {
            self.leak(format!("an object cannot be created or opened: {error:#}"));
            return Ok(());
        }
        let (objects, used) = (segment.objects().len(), segment.heap_used()?);
        if objects != 2 || used != heap_used {
            self.leak(format!("{objects} objects take {used} bytes instead of 2 that take {heap_used}"));
        }
        Ok(())
    }

    /// In the directory is a whole segment or nothing.
    pub(super) fn directory(&mut self, directory: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name != SEGMENT {
                self.leak(format!("the victim left a file {name:?}"));
            }
        }
        let options = options().directory(directory);
        let used = options.open_or_create(SEGMENT).and_then(|segment| segment.register());
        if let Err(error) = used {
            self.leak(format!("the segment can be neither opened nor created: {error}"));
            return Ok(());
        }
        options.remove(SEGMENT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Named;
    use super::*;

    type Lock = Named<false>;

    fn segment() -> Segment {
        let segment = options().create_memfd("audit").unwrap();
        Lock::create(&segment, NAME).unwrap();
        segment
    }

    fn crew(segment: &Segment) -> Crew {
        Crew::new(segment, rustix::thread::sched_getaffinity(None).unwrap())
    }

    fn with_lock(segment: &Segment, act: impl FnOnce(&Lock) + Send) {
        std::thread::scope(|scope| scope.spawn(|| act(&Lock::open(segment).unwrap())).join()).unwrap();
    }

    fn audit(segment: &Segment, unsure: u64) -> Findings {
        let mut findings = Findings::default();
        let bound = Duration::from_millis(500);
        findings.survivors::<Lock>(&mut crew(segment), segment, unsure, bound).unwrap();
        findings
    }

    #[test]
    fn what_is_well_is_not_complained_of() {
        let segment = segment();
        let mut findings = audit(&segment, 0);
        findings.slots(&segment).unwrap();
        Lock::create(&segment, OBJECT).unwrap();
        findings.objects::<Lock>(&segment, segment.heap_used().unwrap()).unwrap();
        assert!(!findings.is_bad(), "{findings:?}");
    }

    #[test]
    fn a_lock_that_stays_taken_is_found() {
        let segment = segment();
        let mut crew = crew(&segment);
        crew.owner::<Lock>().unwrap();
        assert_eq!(audit(&segment, 0).stuck, 1);
    }

    #[test]
    fn a_torn_pair_and_a_section_too_many_or_too_few_are_found() {
        for (first, second, unsure, violations) in
            [(1, 0, 1, 1), (1, 1, 1, 0), (1, 1, 0, 1), (u64::MAX, u64::MAX, 1, 1)]
        {
            let segment = segment();
            with_lock(&segment, |lock| {
                let guard = lock.lock(None).unwrap().unwrap();
                guard.words()[0].store(first, Ordering::Relaxed);
                guard.words()[1].store(second, Ordering::Relaxed);
            });
            assert_eq!(audit(&segment, unsure).violations, violations, "{first} {second} {unsure}");
        }
    }

    #[test]
    fn a_death_inside_is_a_recovery_and_no_violation() {
        let segment = segment();
        with_lock(&segment, |lock| {
            let guard = lock.lock(None).unwrap().unwrap();
            super::super::lock::half_a_visit(&guard);
            std::mem::forget(guard);
        });
        let findings = audit(&segment, 1);
        assert_eq!((findings.recoveries, findings.is_bad()), (1, false), "{findings:?}");
    }

    #[test]
    fn a_slot_that_nobody_gets_is_found() {
        let segment = segment();
        let mut crew = crew(&segment);
        crew.owner::<Lock>().unwrap();
        let mut findings = Findings::default();
        findings.slots(&segment).unwrap();
        assert_eq!(findings.leaks, 1, "{findings:?}");
    }

    #[test]
    fn an_object_and_memory_that_nobody_asked_for_are_found() {
        let segment = segment();
        Lock::create(&segment, "stray").unwrap();
        let mut findings = Findings::default();
        findings.objects::<Lock>(&segment, segment.heap_used().unwrap()).unwrap();
        assert_eq!(findings.leaks, 2, "{findings:?}");
    }

    #[test]
    fn a_file_that_is_left_and_a_segment_that_is_none_are_found() {
        for (name, leaks) in [("stray", 1), (SEGMENT, 1)] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(name), "half").unwrap();
            let mut findings = Findings::default();
            findings.directory(directory.path()).unwrap();
            assert_eq!(findings.leaks, leaks, "{findings:?}");
        }
    }
}
