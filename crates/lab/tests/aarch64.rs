//! The tests of `crosslock` itself on an aarch64 kernel, in a guest with load-linked / store-conditional only.

use std::time::Duration;

use vmlab::toolchain::Artifact;
use vmlab::{Arch, Cache, Config, Cpu, Guest};

/// Those for which a guest has all that they need; the others are about this machine, or count what is done in a time.
const TESTS: [&str; 8] =
    ["deaths", "domains", "fork", "mutex", "participants", "processes", "rwlock", "segments"];

const LIMIT: Duration = Duration::from_secs(300);

#[test]
#[ignore = "boots a guest"]
fn the_tests_of_crosslock_pass_in_an_aarch64_guest() {
    let cache = Cache::new().unwrap();
    let mut config = Config::new(Cpu::CortexA57).memory_mib(1024);
    for name in TESTS {
        let program = Artifact::test("crosslock", name).stripped().build(&cache, Arch::Aarch64).unwrap();
        config = config.program(format!("/bin/{name}"), program);
    }
    let guest = Guest::boot(config).unwrap();
    // What the tests execute where there is nothing else.
    guest.put("/bin/sleep", 0o755, "#!/bin/vmlab-drill sleep\n").unwrap();
    for name in TESTS {
        // One after the other: some bound how long a wake-up takes.
        let argv = [format!("/bin/{name}"), "--test-threads".into(), "1".into()];
        let run = guest.program(argv).env("TMPDIR", "/dev/shm").limit(LIMIT).run().unwrap();
        println!("{name}: {}", run.text().lines().last().unwrap_or_default());
        run.success().unwrap();
    }
}
