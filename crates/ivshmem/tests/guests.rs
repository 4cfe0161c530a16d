//! Real guests drive the device. These need QEMU, kernels and compilers, which `cargo run -p vmlab -- setup` provides; then
//!
//! ```sh
//! cargo test -p crosslock-ivshmem --test guests -- --ignored --nocapture --test-threads 2
//! ```

mod support;

use crosslock_ivshmem::{PeerId, ServerOptions, Vector};
use support::{LONG, Served, Told};
use vmlab::toolchain::Artifact;
use vmlab::{Cache, Config, Cpu, Guest, Program};

const DRILL: &str = "/bin/ivshmem-drill";
const V0: Vector = Vector::new(0);
const V1: Vector = Vector::new(1);

/// A guest with the drill, and nothing shared.
fn bare(cpu: Cpu, name: &str) -> Config {
    let drill = Artifact::bin("crosslock-lab", "ivshmem-drill").stripped();
    let drill = drill.build(&Cache::new().unwrap(), cpu.arch()).unwrap();
    Config::new(cpu).name(name).program(DRILL, drill)
}

/// A guest with the device of a server of two vectors, in the hands of vfio-pci.
fn guest(served: &Served, cpu: Cpu, name: &str) -> Config {
    bare(cpu, name).vfio().ivshmem_doorbell(&served.socket, 2)
}

fn drill(guest: &Guest, words: &[&str]) -> Program {
    guest.exec([DRILL].iter().chain(words).copied()).unwrap()
}

/// Runs the drill to its end, which must be a good one, and gives what it said.
fn run(guest: &Guest, words: &[&str]) -> String {
    guest.run([DRILL].iter().chain(words).copied()).unwrap().success().unwrap().text()
}

/// An agent that has said who it is, and heard the first ring of each vector.
fn agent(guest: &Guest, words: &[&str]) -> (Program, String) {
    let mut agent = drill(guest, &[&["agent"], words].concat());
    let hello = agent.line_with("peer", LONG).unwrap();
    for vector in [V0, V1] {
        agent.line_with(&format!("rung {vector}"), LONG).unwrap();
    }
    (agent, hello)
}

fn rings_both_ways(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, cpu.name())).unwrap();
    println!("{}", run(&guest, &["show"]));
    let (mut agent, hello) = agent(&guest, &["--mode", "666"]);
    println!("{cpu}: {hello}");
    assert!(hello.contains("peer Some(1)"), "{hello}");
    let host = served.join();
    for vector in [V0, V1] {
        host.ring(PeerId::new(1), vector).unwrap();
        agent.line_with(&format!("rung {vector}"), LONG).unwrap();
    }
    println!("{}", run(&guest, &["ring", "0", "0"]));
    served.record.wait_for(Told::Rung(0));
    println!("{}", run(&guest, &["--user", "1000", "ring", "2", "1"]));
    assert!(host.wait(V1, Some(LONG)).unwrap());
}

#[test]
#[ignore = "boots guests"]
fn an_x86_64_guest_rings_and_is_rung() {
    rings_both_ways(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn a_cortex_a57_guest_rings_and_is_rung() {
    rings_both_ways(Cpu::CortexA57);
}

#[test]
#[ignore = "boots guests"]
fn an_aarch64_guest_with_lse_rings_and_is_rung() {
    rings_both_ways(Cpu::Aarch64Max);
}
