//! Real guests drive the device. These need QEMU, kernels and compilers, which `cargo run -p vmlab -- setup` provides; then
//!
//! ```sh
//! cargo test -p crosslock-ivshmem --test guests -- --ignored --nocapture --test-threads 2
//! ```

mod support;

use std::time::{Duration, Instant};

use crosslock_ivshmem::{Client, PeerId, ServerOptions, Vector};
use support::{LONG, MEMORY_SIZE, Random, Served, Told};
use vmlab::toolchain::Artifact;
use vmlab::{Cache, Config, Cpu, Exit, Guest, Program};

const DRILL: &str = "/bin/ivshmem-drill";
const V0: Vector = Vector::new(0);
const V1: Vector = Vector::new(1);

/// A guest with the drill, and nothing shared.
fn bare(cpu: Cpu, name: &str) -> Config {
    let drill = Artifact::bin("crosslock-lab", "ivshmem-drill").no_default_features().stripped();
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

/// The first word of the memory, as the host has it.
fn word(host: &Client, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    assert_eq!(rustix::io::pread(host.memory(), &mut bytes, offset).unwrap(), 8);
    u64::from_le_bytes(bytes)
}

/// What a drill that hammers has read instead of what it had written just before.
#[derive(Debug)]
struct Seen {
    turns: u64,
    zeros: u64,
    ones: u64,
    other: u64,
}

impl Seen {
    fn wrong(&self) -> u64 {
        self.zeros + self.ones + self.other
    }
}

fn end_of_hammer(mut hammer: Program) -> Seen {
    hammer.close_stdin().unwrap();
    let line = hammer.line_with("turns", LONG).unwrap();
    let number = |name: &str| {
        let mut words = line.split(' ').skip_while(|word| *word != name);
        words.nth(1).unwrap().parse().unwrap()
    };
    let [turns, zeros, ones, other] = ["turns", "zeros", "ones", "other"].map(number);
    let seen = Seen { turns, zeros, ones, other };
    assert!(seen.turns > 1000, "{seen:?}");
    seen
}

/// An agent that has said who it is, and heard the first ring of its vector.
fn agent(guest: &Guest, words: &[&str]) -> (Program, String) {
    let (before, after): (Vec<&str>, Vec<&str>) = match words {
        ["--socket", path, rest @ ..] => (vec!["--socket", path], rest.to_vec()),
        rest => (Vec::new(), rest.to_vec()),
    };
    let mut agent = drill(guest, &[&before[..], &["agent"], &after[..]].concat());
    let hello = agent.line_with("peer", LONG).unwrap();
    agent.line_with("rung 0", LONG).unwrap();
    (agent, hello)
}

/// A process that sleeps on the bell of vector 1, and counts in the word at `offset`.
fn listener(guest: &Guest, offset: u64, more: &[&str]) -> Program {
    let offset = offset.to_string();
    let (before, after) = if more.contains(&"--user") { (more, &[][..]) } else { (&[][..], more) };
    let mut listener = drill(guest, &[before, &["listen", "1", &offset], after].concat());
    listener.line_with("listens to 1 bells", LONG).unwrap();
    listener
}

fn rings_both_ways(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, cpu.name())).unwrap();
    println!("{}", run(&guest, &["show"]));
    let (mut agent, hello) = agent(&guest, &["--mode", "666"]);
    println!("{cpu}: {hello}");
    assert!(hello.contains("peer Some(1)"), "{hello}");
    let host = served.join();
    host.ring(PeerId::new(1), V0).unwrap();
    agent.line_with("rung 0", LONG).unwrap();
    println!("{}", run(&guest, &["ring", "0", "0"]));
    served.record.wait_for(Told::Rung(0));
    println!("{}", run(&guest, &["--user", "1000", "ring", "2", "1", "1000"]));
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

/// Two guests, each with an agent, ring each other.
fn ring_each_other(one: Cpu, other: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guests = [guest(&served, one, "one"), guest(&served, other, "other")];
    let guests = Guest::boot_all(guests).unwrap();
    let mut agents = [&guests[0], &guests[1]].map(|guest| agent(guest, &[]));
    let ids = [0, 1].map(|index: usize| {
        let hello = &agents[index].1;
        hello.split(['(', ')']).nth(1).unwrap().to_owned()
    });
    assert_ne!(ids[0], ids[1]);
    for round in 0..10 {
        let (from, to) = (round % 2, (round + 1) % 2);
        println!("{}", run(&guests[from], &["ring", &ids[to], "0"]));
        agents[to].0.line_with("rung 0", LONG).unwrap();
    }
}

#[test]
#[ignore = "boots guests"]
fn two_x86_64_guests_ring_each_other() {
    ring_each_other(Cpu::X86_64, Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn an_x86_64_and_a_cortex_a57_guest_ring_each_other() {
    ring_each_other(Cpu::X86_64, Cpu::CortexA57);
}

/// What vfio-pci needs; nothing is bound to it.
const MODULES: [&str; 2] = ["vfio_iommu_type1", "vfio_pci"];

fn processes_share_the_device(cpu: Cpu) {
    const TIMES: u64 = 100_000;
    let served = Served::new(&ServerOptions::new(), 2);
    let config = bare(cpu, cpu.name()).iommu().modules(MODULES).ivshmem_doorbell(&served.socket, 2);
    let guest = Guest::boot(config).unwrap();
    let host = served.join();
    // Without an agent nobody has it, and is told what is missing.
    let nobody = guest.run([DRILL, "add", "0", "1"]).unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("start it first"), "{nobody:?}");
    let (private, _) = agent(&guest, &["--socket", "/run/private.sock", "--mode", "600"]);
    let stranger =
        guest.run([DRILL, "--socket", "/run/private.sock", "--user", "1000", "add", "0", "1"]).unwrap();
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("Permission denied"), "{stranger:?}");
    private.kill().unwrap();
    assert_eq!(private.wait(LONG).unwrap(), Exit::Signal(9));

    let (mut first, _) = agent(&guest, &["--mode", "666"]);
    // A second one is refused, and does not take the interrupts.
    let second = guest.run([DRILL, "agent"]).unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("is running"), "{second:?}");
    let times = TIMES.to_string();
    let root = ["--user", "1000"];
    let users: Vec<Program> = (0..3)
        .map(|user| drill(&guest, &[if user == 0 { &root[..] } else { &[] }, &["add", "0", &times]].concat()))
        .collect();
    for user in users {
        user.output(LONG).unwrap().success().unwrap();
    }
    assert_eq!(word(&host, 0), 3 * TIMES);
    host.ring(PeerId::new(1), V0).unwrap();
    first.line_with("rung 0", LONG).unwrap();
}

#[test]
#[ignore = "boots guests"]
fn processes_of_an_x86_64_guest_share_the_device() {
    processes_share_the_device(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn processes_of_a_cortex_a57_guest_share_the_device() {
    processes_share_the_device(Cpu::CortexA57);
}

#[test]
#[ignore = "boots guests"]
fn what_is_missing_is_said() {
    let served = Served::new(&ServerOptions::new(), 2);
    let socket = &served.socket;
    let [bare_bus, no_module, no_device] = Guest::boot_all([
        bare(Cpu::X86_64, "no-iommu").ivshmem_doorbell(socket, 2),
        bare(Cpu::X86_64, "no-module").iommu().ivshmem_doorbell(socket, 2),
        bare(Cpu::X86_64, "no-device"),
    ])
    .unwrap();
    let expect = |guest: &Guest, wanted: &str| {
        let refused = guest.run([DRILL, "agent"]).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.exit == Exit::Code(1) && said.contains(wanted), "{said}");
    };
    expect(&bare_bus, "intel_iommu=on");
    expect(&no_module, "modprobe vfio-pci");
    expect(&no_device, "has no ivshmem device");
}

/// How often a bell is rung.
const RINGS: u64 = 1000;

/// The words that listeners count in, each in a cache line of its own, and free of what the other tests use.
const COUNTS: [u64; 3] = [128, 192, 256];

/// Rings vector 1 of peer 1 and waits until `is_heard`, so often.
fn ring_and_wait(host: &Client, times: u64, mut is_heard: impl FnMut(u64) -> bool) {
    for round in 1..=times {
        let start = Instant::now();
        host.ring(PeerId::new(1), V1).unwrap();
        while !is_heard(round) {
            assert!(start.elapsed() < LONG, "ring {round} was lost: {:?}", COUNTS.map(|at| word(host, at)));
            std::thread::yield_now();
        }
    }
}

/// Two processes sleep on one bell: every ring wakes both, with the agent, without it, and one without the other.
fn every_ring_wakes_every_listener(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, cpu.name())).unwrap();
    let host = served.join();
    let (agent_1, _) = agent(&guest, &["--mode", "666"]);
    let [one, other, third] = COUNTS;
    let first = listener(&guest, one, &["--user", "1000"]);
    let second = listener(&guest, other, &[]);
    let both = |wanted: u64| word(&host, one) == wanted && word(&host, other) == wanted;
    let start = Instant::now();
    ring_and_wait(&host, RINGS, both);
    println!("{cpu}: {RINGS} rings woke two processes each, {:?} from ring to ring", start.elapsed() / 1000);

    // The device stays open, so its interrupts go on.
    agent_1.kill().unwrap();
    assert_eq!(agent_1.wait(LONG).unwrap(), Exit::Signal(9));
    ring_and_wait(&host, RINGS, |round| both(RINGS + round));
    first.kill().unwrap();
    assert_eq!(first.wait(LONG).unwrap(), Exit::Signal(9));
    ring_and_wait(&host, RINGS, |round| word(&host, other) == 2 * RINGS + round);

    // A new agent has new bells: those of the old one are silent, and who connects again hears.
    let (_agent_2, _) = agent(&guest, &[]);
    let _again = listener(&guest, third, &[]);
    ring_and_wait(&host, RINGS, |round| word(&host, third) == round);
    assert_eq!(COUNTS.map(|at| word(&host, at)), [2 * RINGS, 3 * RINGS, RINGS]);
    assert!(second.exit().is_none());
}

#[test]
#[ignore = "boots guests"]
fn every_ring_wakes_every_listener_of_an_x86_64_guest() {
    every_ring_wakes_every_listener(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn every_ring_wakes_every_listener_of_a_cortex_a57_guest() {
    every_ring_wakes_every_listener(Cpu::CortexA57);
}

/// The control: of those who read the bell, each ring wakes one.
fn who_reads_takes_rings_away(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, "control")).unwrap();
    let host = served.join();
    let (_agent, _) = agent(&guest, &[]);
    let _readers = [0, 1].map(|index: usize| listener(&guest, COUNTS[index], &["--by-reading"]));
    let counts = || [word(&host, COUNTS[0]), word(&host, COUNTS[1])];
    ring_and_wait(&host, RINGS, |round| counts().iter().sum::<u64>() >= round);
    let seen = counts();
    println!("{cpu}: {RINGS} rings, two readers: {seen:?}");
    assert_eq!(seen.iter().sum::<u64>(), RINGS, "{seen:?}");
}

#[test]
#[ignore = "boots guests"]
fn who_reads_takes_rings_away_on_x86_64() {
    who_reads_takes_rings_away(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn who_reads_takes_rings_away_on_cortex_a57() {
    who_reads_takes_rings_away(Cpu::CortexA57);
}

/// How often an agent is killed.
const KILLS: u64 = 20;

/// Agents are killed and replaced while a process hammers on the memory. Gives what that process has seen.
fn agents_die(guest: &Guest, host: &Client, hammer: Program, is_held: bool) -> Seen {
    let mut last = hammer.pid();
    for kill in 0..KILLS {
        let (mut next, hello) = agent(guest, &[]);
        let had_from: Option<u32> = hello.split(['(', ')']).rev().nth(1).and_then(|pid| pid.parse().ok());
        let had_from = had_from.filter(|_| hello.contains("had from Some"));
        assert_eq!(had_from.is_some(), is_held, "{hello}");
        // Every one hears.
        host.ring(PeerId::new(1), V0).unwrap();
        next.line_with("rung 0", LONG).unwrap();
        let pid = next.pid();
        next.kill().unwrap();
        assert_eq!(next.wait(LONG).unwrap(), Exit::Signal(9));
        assert_ne!(pid, last, "kill {kill}");
        last = pid;
    }
    let seen = end_of_hammer(hammer);
    println!("{KILLS} agents killed, held {is_held}: {seen:?}");
    seen
}

fn hammer(guest: &Guest, words: &[&str]) -> Program {
    let (before, after) = if words.contains(&"--user") { (words, &[][..]) } else { (&[][..], words) };
    let mut hammer = drill(guest, &[before, &["hammer", "64"], after].concat());
    hammer.line_with("hammering", LONG).unwrap();
    hammer
}

fn no_write_is_lost_when_agents_die(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, cpu.name())).unwrap();
    let host = served.join();
    let (first, _) = agent(&guest, &["--mode", "666"]);
    let hammer = hammer(&guest, &["--user", "1000"]);
    first.kill().unwrap();
    assert_eq!(first.wait(LONG).unwrap(), Exit::Signal(9));
    // At any point of their beginnings.
    let mut random = Random::seeded();
    for _ in 0..KILLS {
        let started = drill(&guest, &["agent"]);
        std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        started.kill().unwrap();
        assert_eq!(started.wait(LONG).unwrap(), Exit::Signal(9));
    }
    let seen = agents_die(&guest, &host, hammer, true);
    assert_eq!(seen.wrong(), 0, "{seen:?}");
    assert_eq!(word(&host, 64), seen.turns);
}

#[test]
#[ignore = "boots guests"]
fn no_write_is_lost_when_agents_of_an_x86_64_guest_die() {
    no_write_is_lost_when_agents_die(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn no_write_is_lost_when_agents_of_a_cortex_a57_guest_die() {
    no_write_is_lost_when_agents_die(Cpu::CortexA57);
}

/// The control: a process that maps the memory and does not hold the device sees what the others are spared.
fn who_does_not_hold_the_device_loses_writes(cpu: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(guest(&served, cpu, "control")).unwrap();
    let host = served.join();
    let (first, _) = agent(&guest, &[]);
    let hammer = hammer(&guest, &["--without-holding"]);
    first.kill().unwrap();
    assert_eq!(first.wait(LONG).unwrap(), Exit::Signal(9));
    let seen = agents_die(&guest, &host, hammer, false);
    assert!(seen.wrong() > 0, "{seen:?}");
}

#[test]
#[ignore = "boots guests"]
fn who_does_not_hold_the_device_loses_writes_on_x86_64() {
    who_does_not_hold_the_device_loses_writes(Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn who_does_not_hold_the_device_loses_writes_on_cortex_a57() {
    who_does_not_hold_the_device_loses_writes(Cpu::CortexA57);
}

/// Of two devices that are held, each new agent has its own.
#[test]
#[ignore = "boots guests"]
fn an_agent_takes_its_own_device_from_those_who_hold_several() {
    let (one, other) = (Served::new(&ServerOptions::new(), 2), Served::new(&ServerOptions::new(), 2));
    // The machine is peer 1 of one server, and 2 of the other.
    let _first = other.join();
    let both = guest(&one, Cpu::X86_64, "both").ivshmem_doorbell(&other.socket, 2);
    let both = Guest::boot(both).unwrap();
    let devices = ["0000:00:02.0", "0000:00:03.0"];
    let start = |device: &str| {
        let socket = format!("/run/{device}.sock");
        let mut agent = drill(&both, &["--device", device, "--socket", &socket, "agent"]);
        let hello = agent.line_with("peer", LONG).unwrap();
        (agent, hello, socket)
    };
    let agents = devices.map(start);
    let ids: Vec<&str> = agents.iter().map(|(_, hello, _)| hello.split(['(', ')']).nth(1).unwrap()).collect();
    assert!(ids == ["1", "2"] || ids == ["2", "1"], "{ids:?}");
    let holders: Vec<Program> = agents
        .iter()
        .map(|(_, _, socket)| {
            let mut holder = drill(&both, &["--socket", socket, "hammer", "64"]);
            holder.line_with("hammering", LONG).unwrap();
            holder
        })
        .collect();
    for (agent, _, _) in &agents {
        agent.kill().unwrap();
        assert_eq!(agent.wait(LONG).unwrap(), Exit::Signal(9));
    }
    for (device, id) in devices.into_iter().zip(ids) {
        let (_, hello, _) = start(device);
        assert!(hello.contains(&format!("peer Some({id})")) && hello.contains("had from Some"), "{hello}");
    }
    for holder in holders {
        assert_eq!(end_of_hammer(holder).wrong(), 0);
    }
}

/// A guest with the device alone behind a root port, where the kernel can reset it by the bus.
fn behind_a_port(served: &Served) -> Config {
    let chardev = format!("socket,id=behind,path={}", served.socket.display());
    bare(Cpu::X86_64, "port").vfio().qemu_arguments([
        "-device",
        "pcie-root-port,id=behind-it,chassis=1",
        "-chardev",
        &chardev,
        "-device",
        "ivshmem-doorbell,bus=behind-it,vectors=2,chardev=behind",
    ])
}

#[test]
#[ignore = "boots guests"]
fn a_reset_is_forbidden() {
    let served = Served::new(&ServerOptions::new(), 2);
    let guest = Guest::boot(behind_a_port(&served)).unwrap();
    let host = served.join();
    // The control: a reset is possible here, and loses writes.
    run(&guest, &["show"]);
    let under_resets = hammer(&guest, &["--without-holding"]);
    for _ in 0..5 {
        run(&guest, &["reset"]);
    }
    let seen = end_of_hammer(under_resets);
    println!("reset: {seen:?}");
    assert!(seen.wrong() > 0, "{seen:?}");

    let (first, _) = agent(&guest, &[]);
    let hammer = hammer(&guest, &[]);
    let reset = guest.run([DRILL, "reset"]).unwrap();
    assert!(String::from_utf8_lossy(&reset.stderr).contains("does nothing"), "{reset:?}");
    first.kill().unwrap();
    first.wait(LONG).unwrap();
    let seen = agents_die(&guest, &host, hammer, true);
    assert_eq!(seen.wrong(), 0, "{seen:?}");
}

/// Without a firmware the kernel puts the registers of two devices into one page, which can then not be mapped.
#[test]
#[ignore = "boots guests"]
fn registers_that_share_their_page_are_written_by_system_calls() {
    let served = Served::new(&ServerOptions::new(), 2);
    let others = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    let config = guest(&served, Cpu::CortexA57, "crowded").ivshmem_plain(others.path(), MEMORY_SIZE);
    let crowded = Guest::boot(config).unwrap();
    let error = crowded.run([DRILL, "show"]).unwrap();
    let said = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(said.contains("several ivshmem devices"), "{said}");
    let of = |address: &'static str| run(&crowded, &["--device", address, "show"]);
    let doorbell = ["0000:00:02.0", "0000:00:03.0"]
        .into_iter()
        .find(|address| of(address).contains("Doorbell"))
        .unwrap();
    let mut agent = drill(&crowded, &["--device", doorbell, "agent"]);
    let hello = agent.line_with("peer", LONG).unwrap();
    assert!(hello.contains("mapped Some(false)"), "{hello}");
    agent.line_with("rung 0", LONG).unwrap();
    let host = served.join();
    host.ring(PeerId::new(1), V0).unwrap();
    agent.line_with("rung 0", LONG).unwrap();
    println!("{}", run(&crowded, &["ring", "2", "1", "10000"]));
    assert!(host.wait(V1, Some(LONG)).unwrap());
}

#[test]
#[ignore = "boots guests"]
fn a_plain_device_has_memory_and_no_bell() {
    let memory = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    memory.as_file().set_len(MEMORY_SIZE).unwrap();
    let config = |cpu| bare(cpu, &format!("plain-{cpu}")).ivshmem_plain(memory.path(), MEMORY_SIZE);
    let guests = [config(Cpu::X86_64), config(Cpu::CortexA57).vfio()];
    for guest in Guest::boot_all(guests).unwrap() {
        println!("{}", run(&guest, &["show"]));
        let mut agent = drill(&guest, &["agent"]);
        let hello = agent.line_with("peer", LONG).unwrap();
        assert!(hello.contains("peer None mapped None"), "{hello}");
        run(&guest, &["add", "8", "1000"]);
        let ring = guest.run([DRILL, "ring", "1", "0"]).unwrap();
        assert!(String::from_utf8_lossy(&ring.stderr).contains("has no vector 0"), "{ring:?}");
        let error = guest.run([DRILL, "echo", "1"]).unwrap();
        assert!(String::from_utf8_lossy(&error.stderr).contains("ivshmem-plain"), "{error:?}");
    }
    let bytes = std::fs::read(memory.path()).unwrap();
    assert_eq!(u64::from_le_bytes(*bytes[8..].first_chunk().unwrap()), 2000);
}

/// Measures: `cargo test -p crosslock-ivshmem --test guests -- --ignored --nocapture round_trip`.
fn round_trip(one: Cpu, other: Cpu) {
    let served = Served::new(&ServerOptions::new(), 2);
    let echoes = Guest::boot(guest(&served, other, "echoes")).unwrap();
    let measures = Guest::boot(guest(&served, one, "measures")).unwrap();
    let mut echo = drill(&echoes, &["echo", "2"]);
    echo.line_with("echoes as peer 1", LONG).unwrap();
    println!("{one} {other}: {}", run(&measures, &["round-trip", "1", "2000"]));
    echo.kill().unwrap();
    let host = served.join();
    let mut echo = drill(&echoes, &["echo", "3"]);
    echo.line_with("echoes as peer 1", LONG).unwrap();
    println!("host {other}, driver: {}", round_trips(&host));
    echo.kill().unwrap();
    assert_eq!(echo.wait(LONG).unwrap(), Exit::Signal(9));
    let (_agent, _) = agent(&echoes, &[]);
    let _listener = listener(&echoes, COUNTS[0], &["--answer", "3"]);
    println!("host {other}, bell of an attachment: {}", round_trips(&host));
    assert_eq!(word(&host, COUNTS[0]), 2000);
}

/// From the host to peer 1, and back.
fn round_trips(host: &Client) -> String {
    let mut trips: Vec<Duration> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            host.ring(PeerId::new(1), V1).unwrap();
            assert!(host.wait(V1, Some(LONG)).unwrap());
            start.elapsed()
        })
        .collect();
    trips.sort_unstable();
    format!("2000 round trips: median {:.1} us", trips[1000].as_secs_f64() * 1e6)
}

#[test]
#[ignore = "boots guests"]
fn round_trip_between_x86_64_guests() {
    round_trip(Cpu::X86_64, Cpu::X86_64);
}

#[test]
#[ignore = "boots guests"]
fn round_trip_between_x86_64_and_cortex_a57() {
    round_trip(Cpu::X86_64, Cpu::CortexA57);
}
