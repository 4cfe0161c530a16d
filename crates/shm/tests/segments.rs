//! Creation, opening and removal of segments.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use crosslock::crosslock_core::RawPvQSpin;
use crosslock::{Error, Segment};
use support::{Actor, eventually, forked, role, say, sleep_until_killed, small};

#[test]
fn create_open_remove() {
    let directory = tempfile::tempdir().unwrap();
    let options = small(directory.path());
    assert!(matches!(options.open("s"), Err(Error::NotFound { .. })));
    let created = options.create("s").unwrap();
    assert!(matches!(options.create("s"), Err(Error::Exists { .. })));
    assert_eq!(options.open("s").unwrap().uuid(), created.uuid());
    assert_eq!(options.open_or_create("s").unwrap().uuid(), created.uuid());
    assert_eq!((created.slots(), created.heap_size(), created.heap_used().unwrap()), (8, 4096, 0));

    std::fs::write(directory.path().join("other"), "no segment").unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    assert_eq!(options.list().unwrap(), ["s"]);
    options.remove("s").unwrap();
    assert!(matches!(options.remove("s"), Err(Error::NotFound { .. })));
    assert!(options.list().unwrap().is_empty());
    created.spin_mutex::<_, RawPvQSpin>("still", 1u8).unwrap().lock().unwrap().set(2);
    assert_ne!(options.open_or_create("s").unwrap().uuid(), created.uuid());
}

#[test]
fn the_default_directory_is_that_of_shared_memory() {
    let name = &format!("crosslock-test-{}", std::process::id());
    let segment = Segment::open_or_create(name).unwrap();
    assert_eq!(std::fs::metadata(format!("/dev/shm/{name}")).unwrap().size(), segment.size() as u64);
    assert_eq!(Segment::open(name).unwrap().uuid(), segment.uuid());
    Segment::remove(name).unwrap();
    assert!(matches!(Segment::open_read_only(name), Err(Error::NotFound { .. })));
}

#[test]
fn the_mode_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    for (asked, given) in [(0o600, 0o600), (0o666, 0o666), (0o020, 0o620), (0o7777, 0o777)] {
        let name = format!("{asked:o}");
        small(directory.path()).mode(asked).create(&name).unwrap();
        let mode = std::fs::metadata(directory.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, given, "{asked:o}");
    }
}

#[test]
fn a_user_without_permission_is_told_so() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = small(directory.path());
    options.create("s").unwrap();
    let path = directory.path().join("s");
    let is_root = std::fs::metadata(&path).unwrap().uid() == 0;
    let mode = if is_root { 0o644 } else { 0o400 };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    assert!(forked(|| {
        // SAFETY: a system call, in a child that has but one thread.
        let changed = !is_root || unsafe { libc::setuid(65_534) } == 0;
        let refused = options.open("s").unwrap_err();
        let readable = options.open_read_only("s").is_ok();
        let text = refused.to_string();
        changed
            && readable
            && matches!(refused, Error::PermissionDenied { .. })
            && text.contains("read-write")
    }));
}

#[test]
fn options_out_of_range_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = small(directory.path());
    for bad in [
        options.clone().participants(0),
        options.clone().participants(16_384),
        options.clone().objects(65_537),
        options.clone().heap_size(u64::MAX),
    ] {
        assert!(matches!(bad.create("s"), Err(Error::InvalidOption { .. })), "{bad:?}");
    }
    let largest = options.participants(16_383).objects(65_536).heap_size(0).create("s").unwrap();
    assert_eq!(largest.slots(), 16_383);
    assert!(matches!(
        largest.spin_mutex::<_, RawPvQSpin>("m", 0u8),
        Err(Error::HeapFull { free: 0, needed: 72 })
    ));
}

#[test]
fn a_look_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = small(directory.path());
    let segment = options.create("s").unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 5u64).unwrap();
    let guard = mutex.lock().unwrap();
    let bytes = || std::fs::read(directory.path().join("s")).unwrap();
    let before = bytes();

    let look = options.open_read_only("s").unwrap();
    assert_eq!(look.uuid(), segment.uuid());
    let objects = look.objects();
    assert_eq!((objects[0].name.as_str(), objects[0].ty.size, objects[0].word), ("m", 72, 1));
    assert_eq!(objects[0].ty.kind.to_string(), "pvqspinlock");
    assert_eq!(look.heap_used().unwrap(), 128);
    assert!(look.participants().unwrap().is_empty());
    assert!(look.is_attached_by_anyone().unwrap());
    assert!(matches!(look.spin_mutex::<_, RawPvQSpin>("m", 5u64), Err(Error::ReadOnly { .. })));
    assert!(matches!(look.register(), Err(Error::ReadOnly { .. })));
    assert!(matches!(look.context(), Err(Error::ReadOnly { .. })));
    assert_eq!(bytes(), before);

    drop(guard);
    drop(mutex);
    drop(segment);
    // Not at once: other tests of this process start children, which know of it until they run.
    eventually("a look does not attach", || !look.is_attached_by_anyone().unwrap());
}

#[test]
fn a_stale_segment_is_temporary_and_unattached() {
    let directory = tempfile::tempdir().unwrap();
    let (options, temporary) = (small(directory.path()), small(directory.path()).temporary(true));
    drop(options.create("kept").unwrap());
    assert!(!options.remove_stale("kept").unwrap());
    let used = temporary.create("used").unwrap();
    assert!(used.is_temporary());
    assert!(!options.remove_stale("used").unwrap());
    drop(used);
    eventually("it is unattached", || options.remove_stale("used").unwrap());
    assert_eq!(options.list().unwrap(), ["kept"]);
}

#[test]
fn a_segment_of_the_dead_is_unattached() {
    if let Some((_, options)) = role() {
        let _segment = options.temporary(true).create("s").unwrap();
        say("created");
        sleep_until_killed();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut other = Actor::start("a_segment_of_the_dead_is_unattached", "", directory.path());
    other.hear();
    let look = small(directory.path()).open_read_only("s").unwrap();
    assert!(look.is_attached_by_anyone().unwrap());
    other.kill();
    assert!(!look.is_attached_by_anyone().unwrap());
    assert!(small(directory.path()).remove_stale("s").unwrap());
}

#[test]
fn killed_at_any_moment_a_creator_leaves_all_or_nothing() {
    if let Some((_, options)) = role() {
        say("begins");
        for turn in 0u64.. {
            let segment = options.create(&format!("s{turn}")).unwrap();
            segment.spin_mutex::<_, RawPvQSpin>("m", [turn; 16]).unwrap();
        }
    }
    for delay in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let options = small(directory.path());
        let test = "killed_at_any_moment_a_creator_leaves_all_or_nothing";
        let mut other = Actor::start(test, "", directory.path());
        other.hear();
        std::thread::sleep(Duration::from_micros(137 * delay));
        other.kill();
        let names = options.list().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), names.len(), "nothing else is left");
        for name in names {
            let segment = options.open(&name).unwrap();
            let turn: u64 = name[1..].parse().unwrap();
            assert_eq!(
                segment.spin_mutex::<_, RawPvQSpin>("m", [turn; 16]).unwrap().lock().unwrap().get(),
                [turn; 16]
            );
            assert_eq!(segment.objects().len(), 1);
        }
    }
}
