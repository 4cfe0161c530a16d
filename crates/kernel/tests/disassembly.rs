//! What is emitted for lock and unlock: how many locked instructions, and nothing for hooks that are not there.
//!
//! Compiles `examples/emitted.rs` with optimisation, without any feature, and reads `objdump`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The instructions of `function`, without addresses.
fn instructions(function: &str) -> Vec<String> {
    static LISTING: OnceLock<String> = OnceLock::new();
    let listing = LISTING.get_or_init(|| {
        // A directory of its own: the one around this test may be locked. By hand, since cargo would build what tests need, too.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disassembly");
        output(
            Command::new(env!("CARGO"))
                .args(["build", "--release", "--lib", "-p", "crosslock-kernel", "-p", "crosslock-core"])
                .arg("--target-dir")
                .arg(&target)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env("CARGO_BUILD_BUILD_DIR", &target)
                .env_remove("RUSTFLAGS"),
        );
        let (built, program) = (target.join("release"), target.join("emitted"));
        let library = |name: &str| format!("{name}={}", built.join(format!("lib{name}.rlib")).display());
        output(
            Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()))
                .args(["--edition", "2024", "-C", "opt-level=3", "examples/emitted.rs"])
                .args(["--extern", &library("crosslock_kernel"), "--extern", &library("crosslock_core")])
                .arg("-L")
                .arg(built.join("deps"))
                .arg("-o")
                .arg(&program)
                .current_dir(env!("CARGO_MANIFEST_DIR")),
        );
        output(&mut Command::new(&program));
        output(Command::new("objdump").args(["-d", "--no-show-raw-insn", "--no-addresses"]).arg(&program))
    });
    let body: Vec<_> = listing
        .lines()
        .skip_while(|line| *line != format!("<{function}>:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .map(|line| line.trim().to_owned())
        .collect();
    assert!(!body.is_empty(), "no {function}");
    // Padding between functions.
    let end = body.iter().rposition(|line| !line.starts_with("nop") && !line.starts_with("xchg   %ax,%ax"));
    body[..=end.unwrap()].to_vec()
}

/// Locked instructions; an exchange with memory is one without saying so.
fn locked(function: &str) -> Vec<String> {
    let is_locked = |line: &String| {
        line.starts_with("lock")
            || line.starts_with("xchg") && line.contains('(')
            || line.starts_with("mfence")
    };
    instructions(function).into_iter().filter(is_locked).collect()
}

#[test]
fn several_cpus_cost_one_locked_instruction() {
    for function in ["smp_plain", "smp_irqsave"] {
        let found = locked(function);
        assert_eq!(found.len(), 1, "{function}: {found:?}");
        assert!(found[0].contains("cmpxchg"), "{found:?}");
    }
}

#[test]
fn a_uniprocessor_costs_none() {
    let functions = [
        "up_plain",
        "up_irq",
        "up_irqsave",
        "up_bh",
        "up_read",
        "up_write",
        "up_unchecked_plain",
        "up_unchecked_irqsave",
    ];
    for function in functions {
        assert_eq!(locked(function), [""; 0], "{function}");
    }
}

/// What remains on a uniprocessor is the accounting.
#[test]
fn a_uniprocessor_counts_all_the_same() {
    let unchecked = instructions("up_unchecked_plain");
    let counts = |line: &&String| {
        line.contains("CPU") || line.contains("inc") || line.contains("add") || line.contains("dec")
    };
    assert!(unchecked.iter().filter(counts).count() >= 2, "{unchecked:#?}");
}

#[test]
fn no_hooks_cost_nothing() {
    let (by_hand, plain) = (instructions("tas_by_hand"), instructions("tas_plain"));
    assert_eq!(mnemonics(&plain), mnemonics(&by_hand), "{plain:#?}\n{by_hand:#?}");
    // Negative control: with hooks, there is more.
    let traced = instructions("tas_traced");
    assert!(traced.len() > plain.len(), "{traced:#?}");
    assert!(traced.iter().any(|line| line.contains("LAST")), "{traced:#?}");
}

/// What is done, wherever the registers, labels and symbols are.
fn mnemonics(body: &[String]) -> Vec<&str> {
    body.iter().filter_map(|line| line.split_whitespace().next()).collect()
}
