//! The socket's name: whose it is, who may use it, and that it goes.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crosslock_ivshmem::{Client, Error, ServerOptions};
use support::{Served, memory};

fn bind(path: &Path) -> crosslock_ivshmem::Result<crosslock_ivshmem::Server> {
    ServerOptions::new().bind(path, memory(4096))
}

#[test]
fn a_stop_removes_it() {
    let mut served = Served::new(&ServerOptions::new(), 1);
    assert!(served.socket.exists());
    served.stop();
    assert!(!served.socket.exists());
    assert!(matches!(Client::connect(&served.socket), Err(Error::NoServer { .. })));
    assert_eq!(std::fs::read_dir(served.directory.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_drop_removes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = bind(&path).unwrap();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());
}

#[test]
fn what_a_dead_server_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // The standard library leaves the name behind, as a kill does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(bind(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_living_server_is_left_alone() {
    let served = Served::new(&ServerOptions::new(), 2);
    for _ in 0..10 {
        let error = bind(&served.socket).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    let client = served.join();
    assert_eq!(client.id().get(), 1, "nobody was counted");
    assert_eq!(served.record.all().len(), 1, "and nobody was bothered");

    // A listener of another kind, too.
    let path = served.directory.path().join("other");
    let other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(Error::InUse { .. })));
    drop(other);
}

#[test]
fn of_many_that_start_at_once_one_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for _ in 0..20 {
        drop(UnixListener::bind(&path).unwrap());
        let servers: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..8).map(|_| scope.spawn(|| bind(&path))).collect();
            starting.into_iter().map(|starting| starting.join().unwrap()).collect()
        });
        let refused = servers.iter().filter(|server| matches!(server, Err(Error::InUse { .. }))).count();
        assert_eq!(refused, 7);
        assert!(path.exists());
        drop(servers);
        assert!(!path.exists());
    }
}

#[test]
fn what_is_no_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path), Err(Error::NotASocket { found: "file", .. })));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(bind(&link), Err(Error::NotASocket { found: "symbolic link", .. })));
    assert!(matches!(bind(directory.path()), Err(Error::NotASocket { found: "directory", .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn somebody_elses_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
    drop(other);
}

#[test]
fn permissions_are_those_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mode = || std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
    let server = bind(&path).unwrap();
    assert_eq!(mode(), 0o600);
    drop(server);
    // More than the usual umask allows.
    for asked in [0o666, 0o660, 0o620, 0o000, 0o777] {
        let server = ServerOptions::new().mode(asked).bind(&path, memory(4096)).unwrap();
        assert_eq!(mode(), asked, "{asked:o}");
        drop(server);
    }
}

#[test]
fn it_is_at_no_time_more_open_than_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // So that nothing but the server closes it.
    rustix::process::umask(rustix::fs::Mode::empty());
    let binding = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            binding.wait();
            let end = std::time::Instant::now() + std::time::Duration::from_millis(300);
            let mut seen = std::collections::BTreeMap::new();
            while std::time::Instant::now() < end {
                if let Ok(found) = std::fs::symlink_metadata(&path) {
                    *seen.entry(found.permissions().mode() & 0o777).or_insert(0) += 1;
                }
            }
            seen
        });
        binding.wait();
        while !watching.is_finished() {
            drop(bind(&path).unwrap());
        }
        let seen = watching.join().unwrap();
        println!("modes seen, in decimal: {seen:?}");
        assert!(seen.keys().eq([&0o600]), "in decimal: {seen:?}");
    });
}

#[test]
fn a_locked_directory_is_waited_for_and_then_said() {
    use rustix::fs::{FlockOperation, flock};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let lock = std::fs::File::open(directory.path()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    assert!(matches!(bind(&path), Err(Error::Busy { waited_ms: 2000.., .. })));
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| bind(&path));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(lock);
        starting.join().unwrap().unwrap();
    });
}

#[test]
fn a_path_that_is_too_long_or_nowhere_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let error = bind(&directory.path().join("x".repeat(200))).unwrap_err();
    assert!(error.to_string().contains("path of the socket"), "{error}");
    let error = bind(&directory.path().join("no/where")).unwrap_err();
    assert!(error.to_string().contains("directory of the socket"), "{error}");
    assert!(matches!(Client::connect(directory.path().join("x")), Err(Error::NoServer { .. })));
}
