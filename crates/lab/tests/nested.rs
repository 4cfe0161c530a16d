//! Guests of a real KVM, in an emulated machine: `cargo lab setup` once, then
//! `cargo test -p crosslock-lab --test nested -- --ignored`. All scenarios, with a table: `cargo lab --nested`.

use crosslock_lab::nested::Nested;
use crosslock_lab::scenarios::{ALL, Extent};

/// With the control: where nothing is lost without a lock, the check is worth nothing.
#[test]
#[ignore = "boots guests"]
fn two_guests_of_kvm_exclude_each_other() {
    let mut nested = Nested::default();
    for name in ["no-lock", "same"] {
        let scenario = ALL.iter().find(|scenario| scenario.name == name).unwrap();
        let outcomes = nested.run(scenario, Extent::Quick).unwrap();
        println!("{}", crosslock_lab::table(&outcomes));
        assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.is_good));
    }
}
