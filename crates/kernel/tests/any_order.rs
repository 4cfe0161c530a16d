//! Guards of all forms, taken and dropped in any order: at each step exactly that is disabled which some guard disables.
#![cfg(all(feature = "hosted", target_os = "linux"))]

use std::any::Any;

use crosslock_core::RawQSpin;
use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_kernel::hosted::{Cpu, Hosted, NotPreemptible, Setup, interrupt, open_softirq, request_irq};
use crosslock_kernel::{
    NoHooks, Platform, Problem, RawSpinLock, Report, RwSpinLock, local_bh_disable, local_irq_save,
    preempt_disable, raise_softirq,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Wrong orders are what this is about.
struct AnyOrder;

impl Setup for AnyOrder {
    type Arch = RawQSpin;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;

    fn report(report: &Report) {
        assert!(matches!(report.problem, Problem::WrongOrder | Problem::IrqsAlreadyDisabled), "{report}");
    }
}

type P = Hosted<AnyOrder>;

/// Something that a guard does.
#[derive(Clone, Copy, Debug)]
enum Take {
    Lock,
    Irq,
    IrqSave,
    Bh,
    Read,
    WriteIrqSave,
    ReadBh,
    Preempt,
    LocalIrq,
    LocalBh,
}

impl Take {
    const ALL: [Self; 10] = [
        Self::Lock,
        Self::Irq,
        Self::IrqSave,
        Self::Bh,
        Self::Read,
        Self::WriteIrqSave,
        Self::ReadBh,
        Self::Preempt,
        Self::LocalIrq,
        Self::LocalBh,
    ];

    /// A lock of its own, for each.
    fn guard(self) -> Box<dyn Any> {
        let lock: &'static RawSpinLock<P, u32> = Box::leak(Box::new(RawSpinLock::new(0)));
        let rw: &'static RwSpinLock<P, u32> = Box::leak(Box::new(RwSpinLock::new(0)));
        match self {
            Self::Lock => Box::new(lock.lock()),
            Self::Irq => Box::new(lock.lock_irq()),
            Self::IrqSave => Box::new(lock.lock_irqsave()),
            Self::Bh => Box::new(lock.lock_bh()),
            Self::Read => Box::new(rw.read()),
            Self::WriteIrqSave => Box::new(rw.write_irqsave()),
            Self::ReadBh => Box::new(rw.read_bh()),
            Self::Preempt => Box::new(preempt_disable::<P>()),
            Self::LocalIrq => Box::new(local_irq_save::<P>()),
            Self::LocalBh => Box::new(local_bh_disable::<P>()),
        }
    }

    fn keeps_preemption_away(self) -> bool {
        !matches!(self, Self::LocalIrq | Self::LocalBh)
    }

    fn keeps_interrupts_away(self) -> bool {
        matches!(self, Self::Irq | Self::IrqSave | Self::WriteIrqSave | Self::LocalIrq)
    }

    fn keeps_softirqs_away(self) -> bool {
        matches!(self, Self::Bh | Self::ReadBh | Self::LocalBh)
    }
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
static SOFTIRQS: AtomicU32 = AtomicU32::new(0);

fn check(held: &[(Take, Box<dyn Any>)]) -> Result<(), TestCaseError> {
    let how_many = |keeps: fn(Take) -> bool| held.iter().filter(|(take, _)| keeps(*take)).count();
    let count = P::preempt_count();
    prop_assert_eq!(count.preempt() as usize, how_many(Take::keeps_preemption_away));
    prop_assert_eq!(count.softirq_disabled() as usize, how_many(Take::keeps_softirqs_away));
    prop_assert_eq!(count.irq_off_depth() as usize, how_many(Take::keeps_interrupts_away));
    prop_assert_eq!(P::irqs_disabled(), how_many(Take::keeps_interrupts_away) > 0);
    // What came meanwhile has been handled if, and only if, nothing keeps it away.
    prop_assert_eq!(INTERRUPTS.load(Ordering::Relaxed) == 1, how_many(Take::keeps_interrupts_away) == 0);
    let softirqs_run = how_many(Take::keeps_interrupts_away) + how_many(Take::keeps_softirqs_away) == 0;
    prop_assert_eq!(SOFTIRQS.load(Ordering::Relaxed) == 1, softirqs_run);
    Ok(())
}

#[test]
fn exactly_what_a_guard_disables_is_disabled() {
    let cpu = Cpu::claim().unwrap();
    let _irq = request_irq(20, || {
        INTERRUPTS.store(1, Ordering::Relaxed);
    })
    .unwrap();
    let _softirq = open_softirq(20, || {
        SOFTIRQS.store(1, Ordering::Relaxed);
    })
    .unwrap();
    let steps = prop::collection::vec((prop::sample::select(&Take::ALL), 0usize..8), 1..12);
    let mut runner = TestRunner::new(ProptestConfig { cases: 2000, ..ProptestConfig::default() });
    let result = runner.run(&steps, |steps| {
        let mut held: Vec<(Take, Box<dyn Any>)> = Vec::new();
        // First a guard more for each step, then a guard less, each time whichever the step says.
        for (take, _) in &steps {
            held.push((*take, take.guard()));
        }
        INTERRUPTS.store(0, Ordering::Relaxed);
        SOFTIRQS.store(0, Ordering::Relaxed);
        interrupt(cpu.id(), 20).map_err(|error| TestCaseError::fail(error.to_string()))?;
        raise_softirq::<P>(20);
        check(&held)?;
        for (_, which) in &steps {
            held.swap_remove(which % held.len());
            check(&held)?;
        }
        prop_assert_eq!(P::preempt_count().bits(), 0);
        Ok(())
    });
    result.unwrap();
}
