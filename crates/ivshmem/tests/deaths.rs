//! Clients that are killed, and who is told of it in which order.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crosslock_ivshmem::{
    Change, Client, ClientOptions, Departure, Observer, PeerId, Peers, Refusal, ServerOptions, Vector,
};
use support::{LONG, Served, Told, eventually, memory};

const V0: Vector = Vector::new(0);
const SOCKET: &str = "CROSSLOCK_TEST_SOCKET";

/// Another process that joins and waits to be killed.
struct Victim {
    child: Child,
    id: u16,
}

impl Victim {
    fn start(served: &Served) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
            .env(SOCKET, &served.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let id = said.find_map(|line| line.unwrap().strip_prefix("id ").map(|id| id.parse().unwrap()));
        Self { child, id: id.expect("it ended without a word") }
    }

    fn kill(&mut self) -> Instant {
        let killed = Instant::now();
        self.child.kill().unwrap();
        killed
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays the other process, when it is one.
#[test]
fn victim() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let client = ClientOptions::new().timeout(LONG).connect(socket).unwrap();
    println!("\nid {}", client.id());
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_kill_is_found_and_rung() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut survivor = served.join();
    let mut figures = Vec::new();
    for _ in 0..10 {
        let mut victim = Victim::start(&served);
        eventually("introduced", || !survivor.update().unwrap().is_empty());
        while survivor.wait(V0, Some(Duration::ZERO)).unwrap() {}
        let killed = victim.kill();
        assert!(survivor.wait(V0, Some(LONG)).unwrap());
        let rung = killed.elapsed();
        // What the ring announces is there.
        assert_eq!(survivor.update().unwrap(), [Change::Left(PeerId::new(victim.id))]);
        let left = served.record.wait_for(Told::Left(victim.id, Departure::HungUp));
        figures.push((left.saturating_duration_since(killed), rung));
    }
    figures.sort_unstable();
    println!("from kill -9 to (observer told, survivor awake): {figures:?}");
}

#[test]
fn sixteen_killed_at_once_are_all_found() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut survivor = served.join();
    let mut victims: Vec<_> = (0..16).map(|_| Victim::start(&served)).collect();
    let killed = victims.iter_mut().map(Victim::kill).last().unwrap();
    for victim in &victims {
        served.record.wait_for(Told::Left(victim.id, Departure::HungUp));
    }
    println!("16 killed, all found {:?} after the last", killed.elapsed());
    eventually("forgotten", || {
        survivor.update().unwrap();
        survivor.peers().eq([PeerId::SERVER])
    });
    assert!(survivor.wait(V0, Some(LONG)).unwrap());
}

/// An observer that looks, when it is told of a death, whether a survivor has been told or rung.
struct Watchful {
    survivor: Client,
    died: Vec<PeerId>,
    /// How many departures the survivor has been told of.
    told: usize,
}

impl Watchful {
    fn hear(&mut self) -> Vec<Change> {
        let changes = self.survivor.update().unwrap();
        self.told += changes.len();
        changes
    }
}

impl Observer for Watchful {
    fn joined(&mut self, _: PeerId, _: BorrowedFd<'_>, _: &Peers) -> Result<(), Refusal> {
        Ok(())
    }

    fn left(&mut self, peer: PeerId, departure: Departure, peers: &Peers) {
        assert_eq!(departure, Departure::HungUp);
        assert!(peers.ring(peer, V0).is_err(), "it is no peer any more");
        assert!(!peers.clients().any(|other| other == peer));
        // Of others it may have been told before: telling it has shown that this one has gone, too.
        assert!(!self.hear().contains(&Change::Left(peer)), "told too early");
        assert!(!self.survivor.wait(V0, Some(Duration::ZERO)).unwrap(), "rung too early");
        self.died.push(peer);
    }
}

#[test]
fn noted_then_told_then_rung() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut server = ServerOptions::new().bind(&socket, memory(4096)).unwrap();
    let mut join = || {
        std::thread::scope(|scope| {
            let joining = scope.spawn(|| Client::connect(&socket).unwrap());
            while !joining.is_finished() {
                assert!(server.turn(&mut (), Some(Duration::from_millis(1))).unwrap().is_continue());
            }
            joining.join().unwrap()
        })
    };
    let survivor = join();
    let others: Vec<_> = (0..5).map(|_| join()).collect();
    let ids: Vec<_> = others.iter().map(Client::id).collect();
    let mut observer = Watchful { survivor, died: Vec::new(), told: 0 };
    // Of whom it has not heard it would not be told that he left.
    while observer.survivor.peers().count() < ids.len() + 1 {
        observer.survivor.update().unwrap();
        assert!(server.turn(&mut (), Some(Duration::from_millis(1))).unwrap().is_continue());
    }

    // All at once; but a process that another test is starting may hold some of them for a moment longer.
    drop(others);
    while observer.told < ids.len() {
        let before = observer.died.len();
        assert!(server.turn(&mut observer, Some(LONG)).unwrap().is_continue());
        observer.hear();
        assert!(observer.told <= observer.died.len());
        let is_rung = observer.survivor.wait(V0, Some(Duration::ZERO)).unwrap();
        assert_eq!(is_rung, observer.died.len() > before);
    }
    observer.died.sort_unstable();
    assert_eq!(observer.died, ids);
    assert_eq!(server.peers().clients().count(), 1);
}

#[test]
fn another_vector_may_be_the_alarm() {
    let served = Served::new(&ServerOptions::new().alarm(Vector::new(2)), 3);
    let survivor = served.join();
    drop(served.join());
    assert!(survivor.wait(Vector::new(2), Some(LONG)).unwrap());
    assert!(!survivor.wait(V0, Some(Duration::ZERO)).unwrap());
}
