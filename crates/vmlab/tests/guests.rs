//! Real guests. These need QEMU, kernels and compilers, which `cargo run -p vmlab -- setup` provides; then
//! `cargo test -p vmlab -- --ignored` runs them, or `.ci/lab` both.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Server, Shared};
use vmlab::toolchain::Artifact;
use vmlab::{Arch, Cache, Config, Cpu, Error, Exit, Guest};

const SOON: Duration = Duration::from_secs(30);
const DRILL: &str = "/bin/vmlab-drill";

/// Has all guests, and if `host` a process of this machine, count together; how far they came, and how far
/// they should have.
fn count(guests: &[&Guest], host: bool, shared: &Shared, how: &[&str]) -> (u64, u64) {
    const ROUNDS: u64 = 2_000_000;
    let peers = guests.len() as u64 + u64::from(host);
    let arguments = |memory: &str| {
        let numbers = [peers.to_string(), ROUNDS.to_string()];
        let rest = how.iter().skip(1).map(|word| (*word).to_owned());
        ["count".to_owned(), memory.to_owned()].into_iter().chain(numbers).chain(rest).collect::<Vec<_>>()
    };
    let here = host.then(|| {
        let drill = Artifact::bin("vmlab", "vmlab-drill").no_default_features();
        let drill = drill.build(&Cache::new().unwrap(), Arch::HOST.unwrap()).unwrap();
        let mut command = Command::new(drill);
        command.args(arguments(shared.path().to_str().unwrap())).stdout(Stdio::null()).spawn().unwrap()
    });
    let start = |guest: &&Guest| {
        let argv = [DRILL.to_owned()].into_iter().chain(arguments(how[0]));
        guest.exec(argv).unwrap()
    };
    let programs: Vec<_> = guests.iter().map(start).collect();
    for program in programs {
        program.output(4 * SOON).unwrap().success().unwrap();
    }
    if let Some(mut here) = here {
        assert!(here.wait().unwrap().success());
    }
    (shared.counter(), peers * ROUNDS)
}

fn runs_programs(cpu: Cpu) {
    let guest = Guest::boot(Config::new(cpu).file("/etc/greeting", "from the image")).unwrap();
    println!("{cpu} on {}: up in {:?}", guest.accel(), guest.boot_time());

    let machine = guest.run([DRILL, "machine"]).unwrap().success().unwrap();
    assert_eq!(machine.text(), cpu.arch().name());
    assert_eq!(guest.get("/etc/greeting").unwrap(), b"from the image");

    // Status, output, error output, environment and input come and go as they are.
    assert_eq!(guest.run([DRILL, "exit", "7"]).unwrap().exit, Exit::Code(7));
    assert_eq!(guest.run([DRILL, "abort"]).unwrap().exit, Exit::Signal(6));
    let complaint = guest.run([DRILL, "complain", "no", "good"]).unwrap();
    assert_eq!((&complaint.stderr[..], &complaint.stdout[..]), (&b"no good\n"[..], &b""[..]));
    let variable = guest.program([DRILL, "env", "COLOUR"]).env("COLOUR", "blue").run().unwrap();
    assert_eq!(variable.text(), "blue");
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let echo = guest.program([DRILL, "cat"]).stdin(bytes.clone()).run().unwrap().success().unwrap();
    assert!(echo.stdout == bytes);
    let flood = guest.run([DRILL, "flood", "3000000"]).unwrap().success().unwrap();
    assert_eq!(flood.stdout.len(), 3_000_000);

    // Files go in at run time, and out; a program among them runs.
    guest.put("/tmp/new/file", 0o600, bytes.clone()).unwrap();
    assert!(guest.get("/tmp/new/file").unwrap() == bytes);
    let drill = guest.get(DRILL).unwrap();
    guest.put("/tmp/copy", 0o755, drill).unwrap();
    assert_eq!(guest.run(["/tmp/copy", "echo", "alive"]).unwrap().text(), "alive");
    let error = guest.get("/nowhere").unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");

    // Failures name their reason.
    let error = guest.exec(["/bin/absent"]).unwrap_err();
    assert!(matches!(&error, Error::NotStarted { reason, .. } if reason.contains("No such file")), "{error}");
    guest.put("/tmp/dynamic", 0o755, "#!/bin/absent\n").unwrap();
    let error = guest.exec(["/tmp/dynamic"]).unwrap_err().to_string();
    assert!(error.contains("is it static?"), "{error}");
    let error = guest.run([DRILL, "exit", "3"]).unwrap().success().unwrap_err().to_string();
    assert!(error.contains("exit status 3"), "{error}");
    let error = guest.program([DRILL, "tick", "10"]).limit(Duration::from_millis(300)).run().unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[test]
#[ignore = "boots a guest"]
fn x86_64_runs_programs() {
    runs_programs(Cpu::X86_64);
}

#[test]
#[ignore = "boots a guest"]
fn cortex_a57_runs_programs() {
    runs_programs(Cpu::CortexA57);
}

#[test]
#[ignore = "boots a guest"]
fn aarch64_max_runs_programs() {
    runs_programs(Cpu::Aarch64Max);
}

#[test]
#[ignore = "boots a guest"]
fn several_programs_run_at_once_and_are_killed_one_by_one() {
    let guest = Guest::boot(Config::new(Cpu::X86_64)).unwrap();
    let mut programs: Vec<_> = (0..4).map(|_| guest.exec([DRILL, "tick", "5"]).unwrap()).collect();
    for program in &mut programs {
        assert_eq!(program.line(SOON).unwrap().as_deref(), Some("0"));
        program.line_with("3", SOON).unwrap();
    }
    let running: Vec<u32> = guest.programs().iter().map(|running| running.pid).collect();
    assert_eq!(running, programs.iter().map(vmlab::Program::pid).collect::<Vec<_>>());

    let victim = programs.swap_remove(0);
    victim.kill().unwrap();
    assert_eq!(victim.wait(SOON).unwrap(), Exit::Signal(9));
    let interrupted = programs.swap_remove(0);
    interrupted.signal(15).unwrap();
    assert_eq!(interrupted.wait(SOON).unwrap(), Exit::Signal(15));
    assert_eq!(guest.programs().len(), 2);
    for program in &mut programs {
        assert_eq!(program.exit(), None);
        program.line(SOON).unwrap();
    }

    // One whose handle is gone goes on, and costs no memory here.
    drop(programs.pop());
    assert_eq!(guest.programs().len(), 2);

    // Input is fed while it runs.
    let mut cat = guest.exec([DRILL, "cat"]).unwrap();
    for line in ["one", "two"] {
        cat.write(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(cat.line(SOON).unwrap().as_deref(), Some(line));
    }
    cat.close_stdin().unwrap();
    assert_eq!(cat.line(SOON).unwrap(), None);
    assert_eq!(cat.wait(SOON).unwrap(), Exit::Code(0));
}

#[test]
#[ignore = "boots a guest"]
fn a_paused_guest_stands_still_and_goes_on() {
    let guest = Guest::boot(Config::new(Cpu::X86_64)).unwrap();
    let mut program = guest.exec([DRILL, "tick", "5"]).unwrap();
    program.line(SOON).unwrap();
    guest.pause().unwrap();
    assert_eq!(guest.status().unwrap(), "paused");
    // What was on its way may still come, then nothing.
    while program.line(Duration::from_millis(500)).is_ok() {}
    guest.resume().unwrap();
    assert_eq!(guest.status().unwrap(), "running");
    program.line(SOON).unwrap();
    let events: Vec<_> = guest.take_events().iter().map(|event| event["event"].clone()).collect();
    assert!(events.contains(&"STOP".into()) && events.contains(&"RESUME".into()), "{events:?}");
    assert!(guest.quit(SOON).unwrap().success());
}

#[test]
#[ignore = "boots a guest"]
fn a_killed_qemu_is_noticed() {
    let guest = Guest::boot(Config::new(Cpu::X86_64)).unwrap();
    let mut program = guest.exec([DRILL, "tick", "1000"]).unwrap();
    program.line(SOON).unwrap();
    let start = Instant::now();
    guest.kill();
    let error = program.wait(SOON).unwrap_err();
    println!("noticed after {:?}", start.elapsed());
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    assert!(error.to_string().contains("signal: 9"), "{error}");
    let status = guest.wait_end(SOON).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(guest.exec([DRILL, "echo"]).is_err());
    assert!(guest.pause().is_err());
}

#[test]
#[ignore = "boots a guest"]
fn a_panic_is_an_error_with_the_consoles_last_lines() {
    let guest = Guest::boot(Config::new(Cpu::X86_64)).unwrap();
    let error = guest.run([DRILL, "crash"]).unwrap_err();
    assert!(matches!(&error, Error::Gone { .. }), "{error}");
    assert!(error.to_string().contains("Kernel panic"), "{error}");
}

#[test]
#[ignore = "boots a guest"]
fn one_that_does_not_boot_leaves_its_logs() {
    let config =
        Config::new(Cpu::X86_64).kernel_argument("rdinit=/absent").kernel_argument("root=/dev/absent");
    let error = Guest::boot(config).unwrap_err();
    let Error::Gone { evidence, .. } = &error else { panic!("{error}") };
    assert!(evidence.panic.is_some(), "{error}");
    let logs = evidence.logs.clone().unwrap();
    assert!(logs.join("console.log").is_file() && logs.join("qmp.log").is_file());
    std::fs::remove_dir_all(logs).unwrap();

    let error = Guest::boot(Config::new(Cpu::X86_64).qemu_arguments(["-device", "nonsense"])).unwrap_err();
    assert!(error.to_string().contains("'nonsense' is not a valid device"), "{error}");
    if let Error::Qmp { evidence, .. } | Error::Gone { evidence, .. } = error {
        std::fs::remove_dir_all(evidence.logs.unwrap()).unwrap();
    }
}

#[test]
#[ignore = "boots a guest"]
fn a_panicking_test_leaves_the_logs_and_no_process() {
    let guest = Guest::boot(Config::new(Cpu::X86_64).name("panicking")).unwrap();
    let pid = guest.pid();
    let logs = guest.keep_logs().to_owned();
    let test = std::thread::spawn(move || {
        let _guest = guest;
        panic!("on purpose");
    });
    assert!(test.join().is_err());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(logs.join("console.log").is_file());
    std::fs::remove_dir_all(logs).unwrap();
}

#[test]
#[ignore = "boots a guest"]
fn a_killed_process_takes_its_guest_along() {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_vmlab"));
    lab.args(["boot", "x86-64"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // It will not come to removing its logs.
    let logs = tempfile::tempdir().unwrap();
    let mut lab = lab.env("TMPDIR", logs.path()).spawn().unwrap();
    let mut stdin = lab.stdin.take().unwrap();
    writeln!(stdin, "{DRILL} echo it lives").unwrap();
    let mut line = String::new();
    BufReader::new(lab.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "it lives\n");

    let qemus = children(lab.id());
    assert_eq!(qemus.len(), 1);
    lab.kill().unwrap();
    lab.wait().unwrap();
    let start = Instant::now();
    while Path::new(&format!("/proc/{}/exe", qemus[0])).exists() {
        assert!(start.elapsed() < SOON, "QEMU lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The children of a process, by their ids.
fn children(of: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    };
    let text: Vec<String> = tasks.map(of_task).collect();
    text.join(" ").split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
#[ignore = "boots guests"]
fn two_x86_64_guests_and_the_host_count_exactly() {
    let shared = Shared::new();
    let [a, b] = Guest::boot_all(["a", "b"].map(|name| shared.guest(Cpu::X86_64, name))).unwrap();
    let (found, expected) = count(&[&a, &b], false, &shared, &["ivshmem-wc"]);
    assert_eq!(found, expected);

    shared.clear();
    let (found, expected) = count(&[&a, &b], true, &shared, &["ivshmem"]);
    assert_eq!(found, expected);

    // Control: additions in two steps are lost, and that is seen.
    shared.clear();
    let (found, expected) = count(&[&a, &b], false, &shared, &["ivshmem-wc", "torn"]);
    println!("torn: {found} of {expected}");
    assert!(found < expected);
    drop((a, b));

    shared.clear();
    let one = Guest::boot(shared.guest(Cpu::X86_64, "single").cpus(1)).unwrap();
    let (found, expected) = count(&[&one], true, &shared, &["ivshmem-wc"]);
    assert_eq!(found, expected);
}

#[test]
#[ignore = "boots guests"]
fn mixed_architectures_count_exactly() {
    let shared = Shared::new();
    let guests = Guest::boot_all(Cpu::ALL.map(|cpu| shared.guest(cpu, cpu.name()))).unwrap();
    for memory in ["ivshmem-wc", "ivshmem"] {
        shared.clear();
        let (found, expected) = count(&guests.each_ref(), false, &shared, &[memory]);
        assert_eq!(found, expected, "{memory}");
    }
}

#[test]
#[ignore = "boots guests"]
fn guests_count_on_the_memory_of_a_server() {
    let shared = Shared::new();
    let server = Server::start(&shared);
    let guest = |cpu: Cpu| Config::new(cpu).ivshmem_doorbell(server.socket(), Server::VECTORS);
    let guests = Guest::boot_all([Cpu::X86_64, Cpu::CortexA57].map(guest)).unwrap();
    let (found, expected) = count(&guests.each_ref(), true, &shared, &["ivshmem-wc"]);
    assert_eq!(found, expected);
}

#[test]
#[ignore = "boots guests"]
fn vfio_has_the_device() {
    let shared = Shared::new();
    let server = Server::start(&shared);
    for cpu in Cpu::ALL {
        let config = Config::new(cpu).ivshmem_doorbell(server.socket(), Server::VECTORS).vfio();
        let guest = Guest::boot(config).unwrap();
        println!("{cpu} with VFIO: up in {:?}", guest.boot_time());
        let groups = guest.run([DRILL, "list", "/dev/vfio"]).unwrap().success().unwrap().text();
        assert!(groups.lines().any(|name| name.parse::<u32>().is_ok()), "{cpu}: {groups:?}");
    }
}

#[test]
#[ignore = "boots a guest"]
fn an_emulated_processor_has_a_hypervisor_of_its_own() {
    let guest = vmlab::nested::boot(|config| config.memory_mib(512)).unwrap();
    let devices = guest.run([DRILL, "list", "/dev"]).unwrap().success().unwrap().text();
    assert!(devices.lines().any(|name| name == "kvm"), "{devices}");
}

#[test]
#[ignore = "boots a guest"]
fn a_guest_that_does_not_boot_is_booted_once_more_and_what_its_cpus_did_is_kept() {
    let name = format!("late-{}", std::process::id());
    let config = Config::new(Cpu::X86_64).name(&name).boot_limit(Duration::from_millis(500));
    let error = Guest::boot(config).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let prefix = format!("vmlab-{name}-");
    let is_its =
        |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix));
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = entries.filter(is_its).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    for logs in kept {
        let said = std::fs::read_to_string(logs.join("qmp.log")).unwrap();
        assert!(said.contains("RIP="), "{said}");
        std::fs::remove_dir_all(logs).unwrap();
    }
}
