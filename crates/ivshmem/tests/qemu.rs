//! Unmodified QEMU as a client. Needs `qemu-system-x86_64` (or the program in `CROSSLOCK_QEMU`):
//!
//! ```sh
//! cargo test -p crosslock-ivshmem --test qemu -- --ignored --nocapture
//! ```
//!
//! The machines do not run (`-S`): what is tested is the device, which attaches before. Each is asked by QMP whether it
//! still lives.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crosslock_ivshmem::{Departure, PeerId, ServerOptions, Vector};
use support::{LONG, Random, Served, Told, eventually, knows};

const V0: Vector = Vector::new(0);

/// A QEMU that is attached, or about to be; killed when it is dropped.
struct Machine {
    process: Child,
    qmp: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Machine {
    fn start(served: &Served, vectors: u16) -> Self {
        let program = std::env::var_os("CROSSLOCK_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LONG)).unwrap();
        let process = Command::new(program)
            .args(["-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "16"])
            .args(["-chardev", &format!("socket,path={},id=ivs", served.socket.display())])
            .args(["-device", &format!("ivshmem-doorbell,vectors={vectors},chardev=ivs")])
            .args(["-chardev", "stdio,id=qmp", "-mon", "chardev=qmp,mode=control"])
            .stdin(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(std::os::fd::OwnedFd::from(theirs))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(ours.try_clone().unwrap());
        let mut this = Self { process, qmp: ours, answers };
        this.expect("\"QMP\"");
        this.ask("qmp_capabilities", "return");
        this
    }

    fn expect(&mut self, wanted: &str) {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            if self.answers.read_line(&mut line).unwrap_or(0) == 0 {
                let mut said = String::new();
                let _ = self.process.kill();
                self.process.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
                panic!("QEMU ended ({:?}): {said}", self.process.wait());
            }
        }
    }

    fn ask(&mut self, command: &str, wanted: &str) {
        writeln!(self.qmp, "{{\"execute\": \"{command}\"}}").unwrap();
        self.expect(wanted);
    }

    /// Whether it still answers, which one that has aborted does not.
    fn lives(&mut self) {
        self.ask("query-status", "prelaunch");
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn quit(mut self) {
        self.ask("quit", "return");
        let status = self.process.wait().unwrap();
        let mut said = String::new();
        self.process.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{status}: {said}");
        assert!(said.is_empty(), "{said}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs QEMU"]
fn a_machine_attaches_and_is_found_when_it_is_killed() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut host = served.join();
    let mut machine = Machine::start(&served, 2);
    served.record.wait_for(Told::Joined(2));
    knows(&mut host, &[PeerId::SERVER, PeerId::new(2)]);
    host.ring(PeerId::new(2), V0).unwrap();
    machine.lives();
    let killed = Instant::now();
    machine.kill();
    let left = served.record.wait_for(Told::Left(2, Departure::HungUp));
    assert!(host.wait(V0, Some(LONG)).unwrap());
    println!("observer told {:?} after kill -9", left.saturating_duration_since(killed));
    let quits = Machine::start(&served, 2);
    quits.quit();
    served.record.wait_for(Told::Left(3, Departure::HungUp));
}

#[test]
#[ignore = "needs QEMU"]
fn machines_come_and_go_and_none_aborts() {
    let crowd = 16;
    let rounds = std::env::var("CROSSLOCK_TEST_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let served = Served::new(&ServerOptions::new(), 2);
    let mut host = served.join();
    let mut random = Random::seeded();
    let mut machines: Vec<Machine> = Vec::new();
    let (mut started, mut killed, mut quit) = (0, 0, 0);
    for _ in 0..rounds {
        std::thread::scope(|scope| {
            let starting: Vec<_> =
                (machines.len()..crowd).map(|_| scope.spawn(|| Machine::start(&served, 2))).collect();
            started += starting.len();
            machines.extend(starting.into_iter().map(|machine| machine.join().unwrap()));
        });
        eventually("all are known", || {
            host.update().unwrap();
            host.peers().count() == crowd + 1
        });
        for machine in &mut machines {
            machine.lives();
        }
        for peer in host.peers() {
            host.ring(peer, Vector::new(1)).unwrap();
        }
        for _ in 0..crowd / 2 {
            let machine = machines.swap_remove(random.below(machines.len()));
            if random.below(3) == 0 {
                machine.quit();
                quit += 1;
            } else {
                machine.kill();
                killed += 1;
            }
        }
        eventually("the dead are forgotten", || {
            host.update().unwrap();
            host.peers().count() == machines.len() + 1
        });
        for machine in &mut machines {
            machine.lives();
        }
    }
    for machine in machines {
        machine.quit();
        quit += 1;
    }
    println!("{started} started, {killed} killed, {quit} quit, none aborted");
}

#[test]
#[ignore = "needs QEMU"]
fn machines_outlive_the_server() {
    let mut served = Served::new(&ServerOptions::new(), 2);
    let mut machine = Machine::start(&served, 2);
    served.stop();
    std::thread::sleep(Duration::from_millis(100));
    machine.lives();
    machine.quit();
}
