//! Descriptors: none is kept that should not be, and what happens when there are no more.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crosslock_ivshmem::{Change, Client, Error, PeerId, Server, ServerOptions, Vector};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{LONG, Raw, memory, open_descriptors};

/// The tests here count, or use up, what belongs to the whole process.
static ALONE: Mutex<()> = Mutex::new(());

struct Fixture {
    server: Server,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new(vectors: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = ServerOptions::new().vectors(vectors).bind(&socket, memory(4096)).unwrap();
        Self { server, _directory: directory }
    }

    /// Serves until there is nothing more to do.
    fn serve(&mut self) {
        for _ in 0..20 {
            assert!(self.server.turn(&mut (), Some(Duration::from_millis(2))).unwrap().is_continue());
        }
    }

    fn knock(&self) -> Raw {
        Raw::connect(self.server.path())
    }

    fn join(&mut self) -> Client {
        let path = self.server.path().to_owned();
        std::thread::scope(|scope| {
            let joining = scope.spawn(move || Client::connect(&path).unwrap());
            while !joining.is_finished() {
                self.serve();
            }
            joining.join().unwrap()
        })
    }
}

/// Takes all descriptors that this process may have, but `spare`.
fn exhaust(spare: usize) -> Exhausted {
    let before = getrlimit(Resource::Nofile);
    let current = Some(u64::try_from(open_descriptors()).unwrap() + 40);
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0) {
        taken.push(fd);
    }
    taken.truncate(taken.len() - spare);
    Exhausted { taken, before }
}

struct Exhausted {
    taken: Vec<OwnedFd>,
    before: Rlimit,
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        self.taken.clear();
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}

#[test]
fn none_is_left_when_all_is_over() {
    let _alone = ALONE.lock();
    let before = open_descriptors();
    let mut fixture = Fixture::new(2);
    let idle = open_descriptors();
    let mut stays = fixture.join();
    let one = open_descriptors();
    let silent = fixture.knock();
    fixture.serve();
    for round in 0..50 {
        let half = fixture.knock();
        let client = fixture.join();
        half.hear().unwrap();
        if round % 2 == 0 {
            drop(half);
            fixture.serve();
        }
        stays.update().unwrap();
        drop(client);
        fixture.serve();
        stays.update().unwrap();
    }
    drop(silent);
    fixture.serve();
    stays.update().unwrap();
    assert_eq!(open_descriptors(), one);
    drop(stays);
    fixture.serve();
    assert_eq!(open_descriptors(), idle);
    drop(fixture);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn strays_are_closed() {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let before = open_descriptors();
    for fds in 1..=4 {
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let server = listener.accept().unwrap().0;
                let some = [listener.as_fd(); 4];
                let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
                control.push(rustix::net::SendAncillaryMessage::ScmRights(&some[..fds]));
                let bytes = [rustix::io::IoSlice::new(&[0; 8])];
                rustix::net::sendmsg(&server, &bytes, &mut control, rustix::net::SendFlags::NOSIGNAL)
                    .unwrap();
            });
            Client::connect(&path).unwrap_err()
        });
        assert!(matches!(error, Error::Violation(_)), "{error}");
        assert_eq!(open_descriptors(), before);
    }
}

#[test]
fn who_finds_no_descriptor_is_turned_away_and_nobody_else() {
    let _alone = ALONE.lock();
    let mut fixture = Fixture::new(2);
    let (mut one, mut two) = (fixture.join(), fixture.join());
    fixture.serve();
    one.update().unwrap();
    two.update().unwrap();
    // The first finds none to be accepted with, the others none for their bells.
    for spare in [0, 1, 2] {
        let knocking: Vec<_> = (0..5).map(|_| fixture.knock()).collect();
        let exhausted = exhaust(spare);
        let (start, cpu) = (Instant::now(), cpu());
        while start.elapsed() < Duration::from_millis(300) {
            assert!(fixture.server.turn(&mut (), Some(Duration::from_millis(100))).unwrap().is_continue());
        }
        let used = self::cpu() - cpu;
        println!("with {spare} descriptors left: {used:?} of CPU in 300 ms");
        assert!(used < Duration::from_millis(150), "it spins: {used:?}");
        for raw in &knocking {
            assert!(raw.hear().is_none());
        }
        one.ring(two.id(), Vector::new(0)).unwrap();
        assert!(two.wait(Vector::new(0), Some(LONG)).unwrap());
        drop(exhausted);
        assert_eq!(fixture.server.peers().clients().collect::<Vec<_>>(), [one.id(), two.id()]);
        assert!(two.update().unwrap().is_empty());
    }
    assert_eq!(fixture.join().id(), PeerId::new(3), "who was turned away has used no id");
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

#[test]
fn a_client_without_room_says_so_and_does_not_mistake_it_for_a_departure() {
    let _alone = ALONE.lock();
    let mut fixture = Fixture::new(2);
    let mut client = fixture.join();
    let other = fixture.knock();
    fixture.serve();
    let exhausted = exhaust(0);
    let updated = client.update();
    drop(exhausted);
    assert!(matches!(updated, Err(Error::OutOfDescriptors)), "{updated:?}");
    drop(other);
}

#[test]
fn more_clients_than_events_in_a_batch() {
    let _alone = ALONE.lock();
    let mut fixture = Fixture::new(1);
    let path = fixture.server.path().to_owned();
    let first = crosslock_ivshmem::ClientOptions::new().vectors(1);
    let mut all: Vec<Client> = std::thread::scope(|scope| {
        let joining = scope.spawn(|| (0..64).map(|_| first.connect(&path).unwrap()).collect());
        while !joining.is_finished() {
            fixture.serve();
        }
        joining.join().unwrap()
    });
    let mut last = all.pop().unwrap();
    last.update().unwrap();
    drop(all);
    // A socket does not hold as many messages at once.
    let mut left = 0;
    let start = Instant::now();
    while left < 63 {
        fixture.serve();
        left += last.update().unwrap().iter().filter(|change| matches!(change, Change::Left(_))).count();
        assert!(start.elapsed() < LONG, "{left} have left");
    }
}

/// Takes from the running thread what lets it have more descriptors in flight than its limit says.
fn obey_the_limit() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    set_capabilities(None, sets).unwrap();
}

#[test]
fn too_many_in_flight_is_waited_out() {
    let _alone = ALONE.lock();
    obey_the_limit();
    let mut fixture = Fixture::new(1);
    let silent: Vec<_> = (0..40).map(|_| fixture.knock()).collect();
    let newcomer = fixture.knock();
    // Enough for all that is opened, but less than would be in flight.
    let before = getrlimit(Resource::Nofile);
    let current = Some(u64::try_from(open_descriptors() + 2 * 41).unwrap() + 20);
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    let start = Instant::now();
    fixture.serve();
    println!(
        "served 41 clients who read nothing in {:?}, with {current:?} descriptors allowed",
        start.elapsed()
    );
    let hearing = std::thread::spawn(move || {
        let heard = std::iter::from_fn(|| newcomer.hear());
        heard.take_while(|(number, bell)| *number != 41 || bell.is_none()).count()
    });
    std::thread::sleep(Duration::from_millis(100));
    fixture.serve();
    assert!(!hearing.is_finished(), "there was room for all");
    assert_eq!(fixture.server.peers().clients().count(), 41);
    drop(silent);
    while !hearing.is_finished() {
        assert!(fixture.server.turn(&mut (), Some(Duration::from_millis(100))).unwrap().is_continue());
    }
    println!("{} messages of the handshake, in the end", hearing.join().unwrap());
    setrlimit(Resource::Nofile, before).unwrap();
}
