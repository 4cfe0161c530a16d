use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::guest::DeviceError;

const SIZE: u64 = 4096;
const LONG: Duration = Duration::from_secs(20);

fn memory() -> OwnedFd {
    let memory = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, SIZE).unwrap();
    memory
}

/// An agent of a device without a doorbell.
fn agent(socket: &Path) -> Agent {
    make_directory(socket).unwrap();
    let listener = Listener::create(socket, 0o600).unwrap();
    Agent::new(listener, None, memory(), SIZE).unwrap()
}

/// What `user` gives, while an agent runs.
fn with_agent<T>(user: impl FnOnce(&Path) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/socket");
    let mut agent = agent(&socket);
    let stopper = agent.stopper();
    let running = std::thread::spawn(move || agent.run(|vector| panic!("{vector} was rung")));
    let given = user(&socket);
    stopper.stop();
    running.join().unwrap().unwrap();
    assert!(!socket.exists());
    given
}

#[test]
fn memory_is_handed_over_and_outlives_the_agent() {
    let attachment = with_agent(|socket| Attachment::connect(socket).unwrap());
    assert_eq!((attachment.id(), attachment.vectors(), attachment.memory_size()), (None, 0, SIZE));
    assert!(attachment.bells().is_empty());
    rustix::io::pwrite(attachment.memory(), b"here", 100).unwrap();
    let error = attachment.ring(PeerId::SERVER, Vector::new(0)).unwrap_err();
    assert!(matches!(error, Error::NoSuchVector { vectors: 0, .. }), "{error}");
}

#[test]
fn all_have_the_same_memory() {
    let (one, other) =
        with_agent(|socket| (Attachment::connect(socket).unwrap(), Attachment::connect(socket).unwrap()));
    rustix::io::pwrite(one.memory(), b"shared", 0).unwrap();
    let mut found = [0; 6];
    rustix::io::pread(other.memory(), &mut found, 0).unwrap();
    assert_eq!(&found, b"shared");
}

#[test]
fn those_without_manners_delay_nobody() {
    with_agent(|socket| {
        let mut crowd = Vec::new();
        for number in 0..400 {
            let mut rude = UnixStream::connect(socket).unwrap();
            match number % 4 {
                0 => drop(rude),
                1 => rude.shutdown(std::net::Shutdown::Both).unwrap(),
                // The agent may have hung up.
                2 => drop(rude.write_all(&[0xff; 4096])),
                _ => crowd.push(rude),
            }
        }
        let start = Instant::now();
        Attachment::connect(socket).unwrap();
        assert!(start.elapsed() < LONG / 4, "{:?}", start.elapsed());
    });
}

#[test]
fn the_directory_is_made_and_the_name_of_a_dead_one_taken() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/socket");
    let first = agent(&socket);
    let mode = fs::metadata(directory.path().join("run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let error = Listener::create(&socket, 0o600).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    // A killed one leaves its name.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead")).unwrap());
    drop(agent(&directory.path().join("dead")));
    drop(first);
    assert!(!socket.exists());
}

#[test]
fn threads_may_share_an_attachment() {
    fn check<T: Send + Sync>() {}
    check::<Attachment>();
    check::<Driver>();
}

#[test]
fn an_agent_has_an_attachment_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let agent = agent(&directory.path().join("socket"));
    let attachment = agent.attach().unwrap();
    drop(agent);
    assert_eq!(attachment.memory_size(), SIZE);
}

/// What a newcomer makes of an agent that says this.
fn attach_to(messages: &[(i64, Option<OwnedFd>)], timeout: Duration, hangs_up: bool) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::scope(|scope| {
        let attaching = scope.spawn(|| Attachment::connect_within(&socket, timeout));
        let (line, _) = listener.accept().unwrap();
        for (value, fd) in messages {
            crate::wire::send(line.as_fd(), *value, fd.as_ref().map(OwnedFd::as_fd)).unwrap();
        }
        let kept = (!hangs_up).then_some(line);
        let error = attaching.join().unwrap().unwrap_err();
        drop(kept);
        error
    })
}

#[test]
fn an_agent_that_means_harm_costs_an_error() {
    let device = |error| match error {
        Error::Device(error) => error,
        other => panic!("{other}"),
    };
    let greeting = || (crate::guest::hand_over::GREETING, None);
    let error = device(attach_to(&[(0, None)], LONG, false));
    assert!(matches!(error, DeviceError::NotAnAgent { what: "the greeting", found: 0, .. }), "{error}");
    let error = device(attach_to(&[greeting()], LONG, true));
    assert!(matches!(error, DeviceError::HungUp { .. }), "{error}");
    let error = device(attach_to(&[greeting()], Duration::from_millis(20), false));
    assert!(matches!(error, DeviceError::NoAnswer { .. }), "{error}");
    let size = i64::try_from(SIZE).unwrap();
    let bell = |device, eventfd| {
        let messages = [greeting(), (1, None), (2, None), (size, Some(memory()))];
        messages.into_iter().chain([(0, Some(device)), (1, Some(eventfd))]).collect::<Vec<_>>()
    };
    let error = device(attach_to(&bell(memory(), memory()), LONG, false));
    assert!(matches!(error, DeviceError::NotAnEventfd { vector } if vector == Vector::new(1)), "{error}");
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let error = device(attach_to(&bell(memory(), eventfd), LONG, false));
    assert!(matches!(&error, DeviceError::NotADevice { found } if found.contains("memfd")), "{error}");
    let socket = UnixStream::pair().unwrap().0;
    let no_memory = [greeting(), (-1, None), (0, None), (size, Some(socket.into()))];
    assert!(matches!(attach_to(&no_memory, LONG, false), Error::UnfitMemory { .. }));
    let other_size = [greeting(), (-1, None), (0, None), (size + 1, Some(memory()))];
    assert!(matches!(attach_to(&other_size, LONG, false), Error::UnfitMemory { .. }));
}
