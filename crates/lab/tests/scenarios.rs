//! The scenarios. They need `cargo run -p vmlab -- setup`; then `cargo test -p crosslock-lab -- --ignored`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crosslock::{Options, Segment};
use vmlab::toolchain::Artifact;
use vmlab::{Cache, Config, Cpu, Guest};

const GUEST: &str = "/bin/lab-guest";
const SOON: Duration = Duration::from_secs(120);
const SIZE: u64 = 1 << 20;

/// A segment for four kernels, in a file that a guest can see as a device's memory.
struct Shared {
    directory: tempfile::TempDir,
    segment: Segment,
}

impl Shared {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = Options::new().directory(directory.path()).domains(4).participants(32).size(SIZE);
        let segment = options.create("s").unwrap();
        Self { directory, segment }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn guest(&self, cpu: Cpu, name: &str) -> Config {
        let program = Artifact::bin("crosslock-lab", "lab-guest");
        let program = program.build(&Cache::new().unwrap(), cpu.arch()).unwrap();
        Config::new(cpu).name(name).ivshmem_plain(self.path(), SIZE).program(GUEST, program)
    }
}

/// Has both guests use every lock, and checks that no section is lost.
fn exact(one: Cpu, other: Cpu) {
    let shared = Shared::new();
    let guests = Guest::boot_all([shared.guest(one, "one"), shared.guest(other, "other")]).unwrap();
    for (lock, turns) in [
        ("robust", 20_000),
        ("tas", 20_000),
        ("pvqspinlock", 20_000),
        ("qspinlock", 2_000),
        ("mcs", 2_000),
        ("ticket", 2_000),
    ] {
        let start = Instant::now();
        let programs: Vec<_> = (1..)
            .zip(&guests)
            .map(|(domain, guest): (u32, _)| {
                let (domain, turns) = (domain.to_string(), turns.to_string());
                guest.exec([GUEST, "--domain", &domain, "count", lock, &turns]).unwrap()
            })
            .collect();
        for program in programs {
            let said = program.output(SOON).unwrap().success().unwrap();
            assert!(said.text().contains(" 0 violations"), "{}", said.text());
        }
        let pair = match lock {
            "robust" => shared.segment.open_mutex::<[u64; 2]>(lock).unwrap().lock().unwrap().get(),
            "tas" => counted::<crosslock::crosslock_core::RawTas>(&shared.segment),
            "ticket" => counted::<crosslock::crosslock_core::RawTicket>(&shared.segment),
            "mcs" => counted::<crosslock::crosslock_core::RawMcs>(&shared.segment),
            "qspinlock" => counted::<crosslock::crosslock_core::RawQSpin>(&shared.segment),
            _ => counted::<crosslock::crosslock_core::RawPvQSpin>(&shared.segment),
        };
        println!("{one} {other} {lock}: {pair:?} in {:?}", start.elapsed());
        assert_eq!(pair, [2 * turns; 2], "{lock}");
    }
}

fn counted<L: crosslock::crosslock_core::RawLock<crosslock::SegmentContext>>(segment: &Segment) -> [u64; 2] {
    segment.spin_mutex::<[u64; 2], L>(L::NAME, [0; 2]).unwrap().lock().unwrap().get()
}

#[test]
#[ignore = "boots guests"]
fn two_guests_exclude_each_other() {
    exact(Cpu::X86_64, Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn a_guest_with_load_linked_and_store_conditional() {
    exact(Cpu::X86_64, Cpu::CortexA57);
}

#[test]
#[ignore = "boots guests"]
fn a_guest_with_lse_atomics() {
    exact(Cpu::X86_64, Cpu::Aarch64Max);
}
