//! What is wrong by type does not compile, and is told so; `tests/compile` has one file for each. The messages are those of
//! the stable compiler; `TRYBUILD=overwrite` writes them anew.
#![cfg(all(feature = "hosted", target_os = "linux"))]

#[test]
fn wrong_uses_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile/pass_*.rs");
    for wrong in [
        "guard_is_not_send",
        "irq_guard_is_not_send",
        "guard_outlives_lock",
        "data_outlives_guard",
        "sleeping_inside_raw",
        "reader_writes",
        "data_is_not_send",
        "hosted_needs_a_lock_that_locks",
    ] {
        cases.compile_fail(format!("tests/compile/{wrong}.rs"));
    }
}
