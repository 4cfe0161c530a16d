//! What is said to whom, in which order.

mod support;

use std::time::Duration;

use crosslock_ivshmem::{Change, ClientOptions, Departure, Error, PeerId, ServerOptions, Vector};
use support::{LONG, MEMORY_SIZE, Raw, Served, Told, eventually, knows, memory};

const V0: Vector = Vector::new(0);
const V1: Vector = Vector::new(1);

#[test]
fn byte_by_byte() {
    let served = Served::new(&ServerOptions::new(), 2);
    let first = Raw::connect(&served.socket);
    let handshake = [(0, false), (1, false), (-1, true), (0, true), (0, true), (1, true), (1, true)];
    assert_eq!(handshake.map(|_| first.number()), handshake);

    let second = Raw::connect(&served.socket);
    let handshake = [
        (0, false), // version
        (2, false), // id
        (-1, true), // memory
        (0, true),  // the server
        (0, true),
        (1, true), // the first
        (1, true),
        (2, true), // itself
        (2, true),
    ];
    assert_eq!(handshake.map(|_| second.number()), handshake);
    assert_eq!([(); 2].map(|()| first.number()), [(2, true), (2, true)]);

    drop(first);
    assert_eq!(second.number(), (1, false));
}

#[test]
fn the_memory_is_the_one_that_was_handed_in() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let ours = memory(MEMORY_SIZE);
    rustix::io::pwrite(&ours, b"it is me", 4096).unwrap();
    let server = ServerOptions::new().bind(&socket, ours).unwrap();
    let served = Served::start(server, directory, 2);
    let client = served.join();
    assert_eq!(client.memory_size(), MEMORY_SIZE);
    let mut bytes = [0; 8];
    rustix::io::pread(client.memory(), &mut bytes, 4096).unwrap();
    assert_eq!(&bytes, b"it is me");
}

#[test]
fn unfit_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let refused = |memory| match ServerOptions::new().bind(&socket, memory).unwrap_err() {
        error @ Error::UnfitMemory { .. } => error.to_string(),
        other => panic!("{other}"),
    };
    assert!(refused(memory(0)).contains("0 bytes"));
    assert!(refused(memory(3 * 4096)).contains("power of two"));
    assert!(refused(memory(64)).contains("page"));
    assert!(refused(std::fs::File::open("/dev/null").unwrap().into()).contains("CharacterDevice"));
    let read_only = directory.path().join("file");
    std::fs::write(&read_only, [0; 4096]).unwrap();
    assert!(refused(std::fs::File::open(read_only).unwrap().into()).contains("reading and writing"));
    assert!(!socket.exists());
}

#[test]
fn options_out_of_range_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let refused = |options: ServerOptions| {
        assert!(
            matches!(options.bind(&socket, memory(4096)), Err(Error::InvalidOption { .. })),
            "{options:?}"
        );
    };
    refused(ServerOptions::new().vectors(0));
    refused(ServerOptions::new().vectors(2049));
    refused(ServerOptions::new().max_clients(0));
    refused(ServerOptions::new().vectors(1).alarm(V1));
    let options = ClientOptions::new().vectors(0);
    assert!(matches!(options.connect(&socket), Err(Error::InvalidOption { .. })));
}

#[test]
fn rings_arrive() {
    let served = Served::new(&ServerOptions::new(), 2);
    let (mut one, mut two) = (served.join(), served.join());
    knows(&mut one, &[PeerId::SERVER, two.id()]);
    knows(&mut two, &[PeerId::SERVER, one.id()]);

    one.ring(two.id(), V1).unwrap();
    assert!(two.wait(V1, Some(LONG)).unwrap());
    assert!(!two.wait(V1, Some(Duration::ZERO)).unwrap());
    assert!(!two.wait(V0, Some(Duration::from_millis(1))).unwrap());
    one.ring(one.id(), V0).unwrap();
    assert!(one.wait(V0, Some(LONG)).unwrap());

    // The server hears vector 0, and answers vector 1 by ringing everybody.
    two.ring(PeerId::SERVER, V0).unwrap();
    served.record.wait_for(Told::Rung(0));
    two.ring(PeerId::SERVER, V1).unwrap();
    assert!(one.wait(V1, Some(LONG)).unwrap());
    assert!(two.wait(V1, Some(LONG)).unwrap());
}

#[test]
fn rings_that_cannot_arrive_say_why() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut one = served.join();
    let two = served.join();
    let two_id = two.id();
    knows(&mut one, &[PeerId::SERVER, two_id]);
    assert!(matches!(one.ring(PeerId::new(9), V0), Err(Error::NoSuchPeer { peer }) if peer.get() == 9));
    let wrong = one.ring(two_id, Vector::new(2));
    assert!(matches!(wrong, Err(Error::NoSuchVector { vectors: 2, .. })), "{wrong:?}");
    assert!(matches!(one.wait(Vector::new(7), None), Err(Error::NoSuchVector { .. })));

    drop(two);
    eventually("left", || one.update().unwrap().contains(&Change::Left(two_id)));
    assert!(matches!(one.ring(two_id, V0), Err(Error::PeerLeft { .. })));
    let three = served.join();
    assert!(matches!(three.ring(two_id, V0), Err(Error::PeerLeft { .. })), "left before it came");
}

#[test]
fn changes_are_told_once() {
    let served = Served::new(&ServerOptions::new(), 3);
    let mut one = served.join();
    let mut seen = Vec::new();
    let two = served.join().id();
    served.record.wait_for(Told::Left(two.get(), Departure::HungUp));
    let three = served.join();
    eventually("all told", || {
        seen.extend(one.update().unwrap());
        seen.contains(&Change::Joined(three.id()))
    });
    seen.retain(|change| *change != Change::Joined(three.id()));
    assert_eq!(seen, [Change::Joined(two), Change::Left(two)]);
}

#[test]
fn the_observer_knows_first_and_may_refuse() {
    let served = Served::new(&ServerOptions::new(), 1);
    *served.record.refuse.lock().unwrap() = true;
    assert!(matches!(served.try_join(), Err(Error::TurnedAway { .. })));
    *served.record.refuse.lock().unwrap() = false;
    let client = served.join();
    assert_eq!(client.id(), PeerId::new(1), "who was refused has used no id");
    assert_eq!(served.record.all(), [Told::Joined(1)]);
}

#[test]
fn no_more_clients_than_seats() {
    let served = Served::new(&ServerOptions::new().max_clients(2), 1);
    let (one, two) = (served.join(), served.join());
    assert!(matches!(served.try_join(), Err(Error::TurnedAway { .. })));
    drop(one);
    served.record.wait_for(Told::Left(1, Departure::HungUp));
    assert_eq!(served.join().id(), PeerId::new(3));
    drop(two);
}

#[test]
fn a_client_that_wants_other_vectors_is_told() {
    let served = Served::new(&ServerOptions::new(), 2);
    let options = ClientOptions::new().timeout(Duration::from_millis(200));
    let few = options.clone().vectors(1).connect(&served.socket).unwrap_err();
    assert!(few.to_string().contains("more than 1 vectors"), "{few}");
    let many = options.vectors(3).connect(&served.socket).unwrap_err();
    assert!(many.to_string().contains("it gave 2 of 3 vectors"), "{many}");
}

#[test]
fn the_end_of_the_server_is_told_and_survived() {
    let mut served = Served::new(&ServerOptions::new(), 1);
    let (mut one, two) = (served.join(), served.join());
    knows(&mut one, &[PeerId::SERVER, two.id()]);
    served.stop();
    assert!(matches!(one.update(), Err(Error::ServerGone)));
    assert!(matches!(one.update(), Err(Error::ServerGone)));
    one.ring(two.id(), V0).unwrap();
    assert!(two.wait(V0, Some(LONG)).unwrap());
    let left = |told: &Told| matches!(told, Told::Left(..));
    assert!(!served.record.all().iter().any(left), "the end of the server is not theirs");
}
