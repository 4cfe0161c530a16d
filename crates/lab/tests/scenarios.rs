//! The scenarios as tests, in small: `cargo run -p crosslock-lab -- setup` once, then `cargo test -p crosslock-lab -- --ignored`.
//! All of them in full, with a table: `cargo run --release -p crosslock-lab`.

use crosslock_lab::scenarios::{ALL, Extent, Setting};

/// Runs a scenario and checks every row of it.
fn holds(name: &str) {
    let scenario = ALL.iter().find(|scenario| scenario.name == name).unwrap();
    let outcomes = scenario.run(Setting::new(Extent::Quick)).unwrap();
    println!("{}", crosslock_lab::table(&outcomes));
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.is_good));
}

macro_rules! scenarios {
    ($($test:ident = $name:literal,)*) => {
        $(#[test]
        #[ignore = "boots guests"]
        fn $test() {
            holds($name);
        })*

        #[test]
        fn every_scenario_is_a_test() {
            let tested = [$($name),*];
            assert!(ALL.iter().all(|scenario| tested.contains(&scenario.name)));
        }
    };
}

scenarios! {
    without_a_lock_updates_are_lost = "no-lock",
    two_guests_exclude_each_other = "same",
    the_host_and_guests_exclude_each_other = "host",
    guests_of_two_architectures_exclude_each_other = "mixed",
    waiters_sleep_and_doorbells_wake_them = "doorbell",
    a_machine_that_is_killed_gives_up_its_locks = "machine-death",
    deaths_in_a_guest_are_heard_of = "process-death",
    deaths_in_a_guest_without_interrupts_are_heard_of = "plain-death",
    a_stopped_machine_keeps_its_locks = "paused",
    garbage_costs_errors_and_no_more = "garbage",
    peers_come_and_go = "crowd",
    locks_that_sleep_bear_too_few_cpus = "oversubscribed",
}
