//! The bare-metal kernel on real machines: the small set of `kernel-lab`. Needs `cargo run -p vmlab -- setup`.
#![cfg(feature = "host")]

use crosslock_lab::kernel::{Effort, Machines, Place, Verdict, plan};
use vmlab::Cpu;

fn all_pass(is_meant: impl Fn(Place) -> bool) {
    let machines = Machines::new().unwrap();
    let mut failed = Vec::new();
    let steps: Vec<_> = plan(Effort::Small).into_iter().filter(|step| is_meant(step.place)).collect();
    assert!(!steps.is_empty());
    for step in steps {
        let outcome = machines.run(&step).unwrap();
        println!("{} ({}): {:?}", outcome.step, outcome.place, outcome.verdict);
        if let Verdict::Failed(problems) = outcome.verdict {
            failed.push(format!("{}: {}\n{}", outcome.step, problems.join("; "), outcome.serial));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
#[ignore = "boots guests"]
fn every_lock_in_every_form_under_emulation() {
    all_pass(|place| place == Place::Tcg { cpu: Cpu::X86_64 });
}

#[test]
#[ignore = "boots guests"]
fn the_same_with_ll_sc() {
    all_pass(|place| place == Place::Tcg { cpu: Cpu::CortexA57 });
}

#[test]
#[ignore = "boots guests"]
fn every_lock_under_a_hypervisor_that_preempts_its_cpus() {
    all_pass(|place| matches!(place, Place::Kvm { .. }));
}
