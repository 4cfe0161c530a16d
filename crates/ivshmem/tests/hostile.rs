//! Clients that mean harm, or do nothing; and a server that means harm.

mod support;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crosslock_ivshmem::protocol::Violation;
use crosslock_ivshmem::{Client, ClientOptions, Departure, Error, PeerId, ServerOptions, Vector};
use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg};
use support::{LONG, Raw, Served, Told, eventually, knows, memory};

const V0: Vector = Vector::new(0);

fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

#[test]
fn who_never_reads_delays_nobody_and_hears_only_what_is_true() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut stays = served.join();
    let silent = Raw::connect(&served.socket);
    served.record.wait_for(Told::Joined(2));
    let mut slowest = Duration::ZERO;
    for _ in 0..500 {
        let start = Instant::now();
        drop(served.join());
        slowest = slowest.max(start.elapsed());
    }
    let last = served.join();
    knows(&mut stays, &[PeerId::SERVER, PeerId::new(2), last.id()]);
    println!("500 joined and left beside a client that does not read, the slowest in {slowest:?}");

    let mut there: Vec<i64> = Vec::new();
    for number in [0, 2] {
        assert_eq!(silent.number(), (number, false));
    }
    assert_eq!(silent.number(), (-1, true));
    let mut count = 0;
    while !(there.contains(&last.id().get().into()) && there.len() == 8) {
        let (peer, has_bell) = silent.number();
        if has_bell {
            there.push(peer);
        } else {
            there.retain(|known| *known != peer);
        }
        count += 1;
    }
    there.dedup();
    assert_eq!(there, [0, 1, 2, last.id().get().into()]);
    assert!(count < 100, "{count} messages for what eight say");
    served.record.wait_for(Told::Left(502, Departure::HungUp));
    assert_eq!(served.record.count(Told::Left(2, Departure::HungUp)), 0, "and it is still there");
}

#[test]
fn who_does_not_read_the_handshake_in_time_is_dropped() {
    // More messages than a socket holds.
    let limit = Duration::from_millis(150);
    let served = Served::new(&ServerOptions::new().handshake_timeout(limit), 64);
    let start = Instant::now();
    let silent = Raw::connect(&served.socket);
    let trickling = Raw::connect(&served.socket);
    let dropped = std::thread::scope(|scope| {
        scope.spawn(|| {
            while trickling.hear().is_some() {
                std::thread::sleep(limit / 10);
            }
        });
        served.record.wait_for(Told::Left(2, Departure::Dropped));
        served.record.wait_for(Told::Left(1, Departure::Dropped))
    });
    let waited = dropped.saturating_duration_since(start);
    assert!(waited >= limit, "{waited:?}");
    println!("dropped after {waited:?}, the limit being {limit:?}");
    while silent.hear().is_some() {}
    served.join();
}

#[test]
fn who_does_not_read_news_is_dropped_only_if_that_is_wanted() {
    for (patience, is_dropped) in [(None, false), (Some(Duration::from_millis(100)), true)] {
        let options = ServerOptions::new().handshake_timeout(Duration::from_millis(100));
        let options = if let Some(patience) = patience { options.patience(patience) } else { options };
        let served = Served::new(&options, 1);
        let silent = served.join();
        // More news than a socket holds.
        let others: Vec<_> = (0..40).map(|_| served.join()).collect();
        if is_dropped {
            served.record.wait_for(Told::Left(silent.id().get(), Departure::Dropped));
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(served.record.all().len(), 41);
        }
        drop(others);
    }
}

#[test]
fn who_closes_in_the_middle_of_the_handshake_is_forgotten() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut stays = served.join();
    let heard = (0..=9).cycle().take(100);
    for messages in heard.clone() {
        let raw = Raw::connect(&served.socket);
        for _ in 0..messages {
            raw.hear().unwrap();
        }
    }
    for peer in (2..).zip(heard).map(|(peer, _)| peer) {
        served.record.wait_for(Told::Left(peer, Departure::HungUp));
    }
    knows(&mut stays, &[PeerId::SERVER]);
}

#[test]
fn nobody_is_told_of_one_who_has_gone_before_he_was_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut server = ServerOptions::new().bind(&socket, memory(4096)).unwrap();
    let mut record = support::Record::default();
    let mut turn =
        || assert!(server.turn(&mut record, Some(Duration::from_millis(20))).unwrap().is_continue());
    let stays = Raw::connect(&socket);
    turn();
    for _ in 0..7 {
        stays.hear().unwrap();
    }
    for _ in 0..3 {
        drop(Raw::connect(&socket));
        turn();
    }
    turn();
    fcntl_setfl(&stays, OFlags::NONBLOCK).unwrap();
    let heard = rustix::io::read(&stays, &mut [0u8; 8]);
    assert_eq!(heard, Err(rustix::io::Errno::AGAIN));
    assert_eq!(record.count(Told::Left(2, Departure::HungUp)), 1, "but the observer is");
}

#[test]
fn bytes_and_descriptors_from_a_client_are_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut server = ServerOptions::new().bind(&socket, memory(4096)).unwrap();
    let talker = Raw::connect(&socket);
    let mut turn = |timeout| assert!(server.turn(&mut (), Some(timeout)).unwrap().is_continue());
    turn(LONG);
    let gift = eventfd(0, EventfdFlags::empty()).unwrap();
    fcntl_setfl(&talker, OFlags::NONBLOCK).unwrap();
    let mut sent = 0;
    while let Ok(bytes) = send(&talker, &[0xff; 100], &[gift.as_fd(), gift.as_fd()]) {
        sent += bytes;
    }
    assert!(sent > 0);
    println!("the kernel kept {sent} bytes of a talker");
    let pause = Duration::from_millis(100);
    let start = Instant::now();
    turn(pause);
    assert!(start.elapsed() >= pause, "the server was woken by what it does not read");
    rustix::net::shutdown(&talker, Shutdown::Write).unwrap();
    let start = Instant::now();
    turn(pause);
    assert!(start.elapsed() >= pause, "the server was woken by half an end");
    drop(talker);
    turn(LONG);
    assert_eq!(server.peers().clients().count(), 0);
}

#[test]
fn who_will_not_send_has_not_left() {
    let served = Served::new(&ServerOptions::new(), 1);
    let half = Raw::connect(&served.socket);
    served.record.wait_for(Told::Joined(1));
    rustix::net::shutdown(&half, Shutdown::Write).unwrap();
    let mut other = served.join();
    knows(&mut other, &[PeerId::SERVER, PeerId::new(1)]);
    assert_eq!(served.record.all().len(), 2);
    rustix::net::shutdown(&half, Shutdown::Read).unwrap();
    served.record.wait_for(Told::Left(1, Departure::HungUp));
}

/// Makes every bell that a client is given a trap: full, and blocking.
fn vandalise(served: &Served) -> Raw {
    let vandal = Raw::connect(&served.socket);
    let full = (u64::MAX - 1).to_ne_bytes();
    for _ in 0..2 {
        vandal.hear().unwrap();
    }
    let (_, memory) = vandal.hear().unwrap();
    drop(memory);
    let peers = served.record.all().iter().filter(|told| matches!(told, Told::Joined(_))).count();
    for _ in 0..=peers {
        let (_, bell) = vandal.hear().unwrap();
        let bell = bell.unwrap();
        fcntl_setfl(&bell, OFlags::NONBLOCK).unwrap();
        let _ = rustix::io::write(&bell, &full);
        fcntl_setfl(&bell, OFlags::empty()).unwrap();
    }
    vandal
}

#[test]
fn vandalised_bells_delay_nobody() {
    let served = Served::new(&ServerOptions::new(), 1);
    let mut one = served.join();
    let two = served.join();
    let vandal = vandalise(&served);
    served.record.wait_for(Told::Rung(0));
    // The server rings everybody, the vandal too, whose bell is a trap.
    let start = Instant::now();
    drop(two);
    served.record.wait_for(Told::Left(2, Departure::HungUp));
    knows(&mut one, &[PeerId::SERVER, PeerId::new(3)]);
    assert!(one.wait(V0, Some(LONG)).unwrap());
    one.ring(PeerId::new(3), V0).unwrap();
    one.ring(PeerId::SERVER, V0).unwrap();
    eventually("the server is rung", || served.record.count(Told::Rung(0)) >= 2);
    assert!(start.elapsed() < LONG / 2);
    drop(vandal);
    served.record.wait_for(Told::Left(3, Departure::HungUp));
}

#[test]
fn a_storm_of_connections_delays_nobody_for_long() {
    let served = Served::new(&ServerOptions::new().max_clients(32), 2);
    let calm = served.join();
    let mut slowest = Duration::ZERO;
    let storm = Duration::from_millis(1500);
    let attempts: usize = std::thread::scope(|scope| {
        let end = Instant::now() + storm;
        let attackers: Vec<_> = (0..6)
            .map(|_| {
                let socket = &served.socket;
                scope.spawn(move || {
                    let mut attempts = 0;
                    while Instant::now() < end {
                        drop(UnixStream::connect(socket));
                        attempts += 1;
                    }
                    attempts
                })
            })
            .collect();
        while Instant::now() < end {
            let (before, start) = (served.record.count(Told::Rung(0)), Instant::now());
            calm.ring(PeerId::SERVER, V0).unwrap();
            while served.record.count(Told::Rung(0)) == before {
                assert!(start.elapsed() < LONG);
                std::thread::sleep(Duration::from_millis(1));
            }
            slowest = slowest.max(start.elapsed());
        }
        attackers.into_iter().map(|attacker| attacker.join().unwrap()).sum()
    });
    let told = || {
        let all = served.record.all();
        let joined = all.iter().filter(|told| matches!(told, Told::Joined(_))).count();
        (joined, all.iter().filter(|told| matches!(told, Told::Left(_, Departure::HungUp))).count())
    };
    eventually("all have left", || told().0 == told().1 + 1);
    println!("{attempts} connections in {storm:?}, {} joined; the slowest ring took {slowest:?}", told().0);
    served.join();
}

/// Runs a server that says what `script` sends, and gives what a client makes of it.
fn told_by(script: impl FnOnce(UnixStream) + Send) -> Result<Client, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || script(listener.accept().unwrap().0));
        ClientOptions::new().vectors(2).max_peers(8).timeout(Duration::from_millis(300)).connect(&path)
    })
}

fn say(server: &UnixStream, value: i64, fd: Option<&OwnedFd>) {
    let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
    // The client may have hung up.
    let _ = send(server, &value.to_le_bytes(), &fds);
}

fn bell() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn hold(server: UnixStream) {
    // Until the client hangs up.
    let _ = std::io::Read::read(&mut { server }, &mut [0]);
}

#[test]
fn a_server_that_breaks_the_protocol_costs_an_error() {
    let violation = |client: Result<Client, Error>| match client.unwrap_err() {
        Error::Violation(violation) => violation,
        other => panic!("{other}"),
    };
    let version = told_by(|server| say(&server, 7, None));
    assert_eq!(violation(version), Violation::Version { found: 7 });
    let stray = told_by(|server| say(&server, 0, Some(&bell())));
    assert_eq!(violation(stray), Violation::StrayDescriptor);
    let id = told_by(|server| {
        say(&server, 0, None);
        say(&server, 70_000, None);
    });
    assert_eq!(violation(id), Violation::NotAnId { found: 70_000 });
    let crowd = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        for peer in 2..100 {
            say(&server, peer, Some(&bell()));
        }
        hold(server);
    });
    assert_eq!(violation(crowd), Violation::TooManyPeers { limit: 8 });
    let many = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        let (a, b, c) = (bell(), bell(), bell());
        let _ = send(&server, &1i64.to_le_bytes(), &[a.as_fd(), b.as_fd(), c.as_fd()]);
        hold(server);
    });
    assert_eq!(violation(many), Violation::StrayDescriptor);
    let two = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        let (a, b) = (bell(), bell());
        let _ = send(&server, &1i64.to_le_bytes(), &[a.as_fd(), b.as_fd()]);
        hold(server);
    });
    assert_eq!(violation(two), Violation::StrayDescriptor);
    let halves = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        let bell = bell();
        let _ = send(&server, &[1, 0, 0], &[bell.as_fd()]);
        let _ = send(&server, &[0; 5], &[bell.as_fd()]);
        hold(server);
    });
    assert_eq!(violation(halves), Violation::StrayDescriptor);
}

#[test]
fn what_a_server_gives_is_looked_at() {
    let null = || OwnedFd::from(std::fs::File::options().read(true).write(true).open("/dev/null").unwrap());
    let no_memory = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        say(&server, -1, Some(&null()));
        hold(server);
    });
    assert!(matches!(no_memory, Err(Error::UnfitMemory { .. })), "{no_memory:?}");
    let empty = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        say(&server, -1, Some(&memory(0)));
        hold(server);
    });
    assert!(matches!(empty, Err(Error::UnfitMemory { .. })), "{empty:?}");
    let no_bell = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        say(&server, 0, Some(&null()));
        hold(server);
    });
    assert!(matches!(no_bell, Err(Error::NotABell { .. })), "{no_bell:?}");
}

#[test]
fn a_server_that_does_not_finish_costs_the_time_limit() {
    let silent = told_by(hold);
    assert!(matches!(silent, Err(Error::TimedOut { vectors: 0, .. })), "{silent:?}");
    let half = told_by(|mut server| {
        server.write_all(&[0; 12]).unwrap();
        hold(server);
    });
    assert!(matches!(half, Err(Error::TimedOut { .. })), "{half:?}");
    let endless = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        let bell = bell();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && send(&server, &2i64.to_le_bytes(), &[bell.as_fd()]).is_ok() {
            say(&server, 2, None);
        }
    });
    assert!(matches!(endless, Err(Error::TimedOut { .. })), "{endless:?}");
    let gone = told_by(|server| say(&server, 0, None));
    assert!(matches!(gone, Err(Error::TurnedAway { .. })), "{gone:?}");
    let later = told_by(|server| {
        say(&server, 0, None);
        say(&server, 1, None);
        say(&server, -1, Some(&memory(4096)));
    });
    assert!(matches!(later, Err(Error::ServerGone)), "{later:?}");

    // One that nobody accepts, behind a full queue.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    let unheard = ClientOptions::new().timeout(Duration::from_millis(100)).connect(&path);
    assert!(matches!(unheard, Err(Error::TimedOut { .. })), "{unheard:?}");
    drop((listener, waiting));
}

#[test]
fn a_violation_later_comes_after_what_was_heard_and_once() {
    let served = |server: UnixStream| {
        say(&server, 0, None);
        say(&server, 1, None);
        say(&server, -1, Some(&memory(4096)));
        for peer in [0, 0, 1, 1, 2, 2] {
            say(&server, peer, Some(&bell()));
        }
        say(&server, 77, None);
        hold(server);
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || served(listener.accept().unwrap().0));
        let mut joined = Client::connect(&path).unwrap();
        let mut changes = Vec::new();
        let error = loop {
            match joined.update() {
                Ok(more) => changes.extend(more),
                Err(error) => break error,
            }
        };
        assert_eq!(changes, [crosslock_ivshmem::Change::Joined(PeerId::new(2))]);
        assert!(matches!(error, Error::Violation(Violation::NotThere { .. })), "{error}");
        assert!(matches!(joined.update(), Err(Error::ServerGone)));
        joined.ring(PeerId::new(2), V0).unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_a_server_says_is_borne(
        begun in any::<bool>(),
        pieces in proptest::collection::vec(
            (prop_oneof![
                (-1i64..4).prop_map(|value| value.to_le_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 1..20),
            ], 0usize..4),
            0..30,
        ),
    ) {
        let client = told_by(move |server| {
            let (memory, bell) = (memory(4096), bell());
            if begun {
                say(&server, 0, None);
                say(&server, 1, None);
                say(&server, -1, Some(&memory));
                say(&server, 1, Some(&bell));
                say(&server, 1, Some(&bell));
            }
            for (bytes, fds) in pieces {
                let some = [bell.as_fd(), memory.as_fd(), bell.as_fd()];
                let _ = send(&server, &bytes, &some[..fds]);
            }
        });
        if let Ok(mut client) = client {
            while client.update().is_ok() {}
        }
    }
}
