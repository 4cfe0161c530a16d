//! `crosslock serve` with processes in the place of virtual machines: each is a peer, and maps the memory as a guest does a
//! device's.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crosslock::{DomainId, LockError, Options, Segment};
use crosslock_ivshmem::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};

/// A server, ended with the test.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
    segment: String,
}

impl Server {
    fn start(test: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let segment = format!("crosslock-test-{}-{test}", std::process::id());
        let mut child = Command::new(env!("CARGO_BIN_EXE_crosslock"))
            .args([
                "serve",
                "--segment",
                &segment,
                "--size",
                "4M",
                "--domains",
                "4",
                "--threads",
                "16",
                "--socket",
            ])
            .arg(directory.path().join("socket"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving "), "{line}");
        Self { child, directory, segment }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn host(&self) -> Segment {
        Segment::open(&self.segment).unwrap()
    }

    fn guest(&self) -> Guest {
        Guest::join(&self.socket())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Segment::remove(&self.segment);
    }
}

/// A peer, its domain, and its own memory.
struct Guest {
    client: Client,
    segment: Segment,
    _home: tempfile::TempDir,
}

impl Guest {
    fn join(socket: &Path) -> Self {
        let client = ClientOptions::new().vectors(8).connect(socket).unwrap();
        let home = tempfile::tempdir().unwrap();
        let device = format!("/proc/self/fd/{}", client.memory().as_raw_fd());
        let peer = DomainId::Peer(client.id().get());
        let segment = Options::new().directory(home.path()).open_device(Path::new(&device), peer).unwrap();
        Self { client, segment, _home: home }
    }
}

/// The role of another process: a guest that has a lock, or only says that it is there.
fn guest_process() -> Option<()> {
    let socket = std::env::var_os("CROSSLOCK_TEST_SOCKET")?;
    let guest = Guest::join(Path::new(&socket));
    core::mem::forget(guest.segment.mutex("m", 0_u64).unwrap().lock());
    println!("\nholds");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_peer_that_is_killed_gives_up_its_locks() {
    if guest_process().is_some() {
        return;
    }
    let server = Server::start("killed");
    let host = server.host();
    let mutex = host.mutex("m", 0_u64).unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut guest = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_peer_that_is_killed_gives_up_its_locks", "--nocapture"])
            .env("CROSSLOCK_TEST_SOCKET", server.socket())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(guest.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "holds"), "it ended before it had the lock");
        let took = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| match mutex.lock() {
                Err(LockError::OwnerDied(suspect)) => {
                    suspect.into_guard().mark_consistent();
                    Instant::now()
                }
                other => panic!("{other:?}"),
            });
            std::thread::sleep(Duration::from_millis(10));
            assert!(!waiter.is_finished());
            let killed = Instant::now();
            let pid = Pid::from_raw(i32::try_from(guest.id()).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            waiter.join().unwrap().saturating_duration_since(killed)
        });
        guest.wait().unwrap();
        times.push(took);
    }
    times.sort_unstable();
    println!("from the kill to the next owner: median {:?}, worst {:?}", times[2], times[4]);
    assert!(times[2] < Duration::from_millis(50), "{times:?}");
}

#[test]
fn each_peer_is_a_domain_and_one_too_many_is_turned_away() {
    let server = Server::start("domains");
    let guests: Vec<_> = (0..3).map(|_| server.guest()).collect();
    let mut domains: Vec<_> = guests.iter().map(|guest| guest.segment.domain()).collect();
    domains.sort_unstable();
    assert_eq!(domains, [1, 2, 3]);
    ClientOptions::new().vectors(8).connect(server.socket()).unwrap_err();
    for guest in &guests {
        let mutex = guest.segment.mutex("n", 0_u64).unwrap();
        mutex.lock().unwrap().update(|n| *n += u64::from(guest.client.id().get()));
    }
    let sum: u64 = guests.iter().map(|guest| u64::from(guest.client.id().get())).sum();
    assert_eq!(server.host().open_mutex::<u64>("n").unwrap().lock().unwrap().get(), sum);
    drop(guests);
    let start = Instant::now();
    while server.host().domains()[1..].iter().any(|domain| domain.is_alive) {
        assert!(start.elapsed() < Duration::from_secs(10), "they are not gone");
    }
    assert_eq!(server.guest().segment.domain(), 1);
}

#[test]
fn an_ended_server_leaves_nothing_behind() {
    let mut server = Server::start("nothing");
    let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
    assert!(!server.socket().exists());
    assert!(matches!(Segment::open(&server.segment), Err(crosslock::Error::NotFound { .. })));
}

/// A server that takes the place of one that was killed gives no id twice; and a person says which machines have gone meanwhile.
#[test]
fn a_new_server_knows_of_the_machines_of_the_old_one() {
    let mut old = Server::start("replaced");
    let guest = old.guest();
    let held = guest.segment.mutex("m", 0_u64).unwrap();
    let held = held.lock().unwrap();
    old.child.kill().unwrap();
    old.child.wait().unwrap();

    let new = Server::start("replaced");
    let other = new.guest();
    assert_eq!((guest.segment.domain(), other.segment.domain()), (1, 2));
    assert!(other.client.id() > guest.client.id());
    let mutex = other.segment.open_mutex::<u64>("m").unwrap();
    assert!(mutex.try_lock().unwrap().is_none());

    let dismiss = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_crosslock"))
            .arg("dismiss")
            .arg(&new.segment)
            .args(arguments)
            .output();
        let run = run.unwrap();
        (run.status.code(), String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap())
    };
    let (status, said) = dismiss(&["1"]);
    assert!(status == Some(2) && said.contains("--force"), "{said}");
    assert!(mutex.try_lock().unwrap().is_none());
    assert_eq!(dismiss(&["0", "--force"]).0, Some(2));
    assert_eq!(dismiss(&["7", "--force"]).0, Some(2));
    let (status, said) = dismiss(&["1", "--force"]);
    assert!(status == Some(0) && said.contains("dismissed domain 1"), "{said}");
    assert!(matches!(mutex.try_lock(), Err(LockError::OwnerDied(_))));
    assert_eq!(dismiss(&["1"]).0, Some(0));
    drop(held);
}
