//! What is no segment, or none of this version, is refused with an error that says so.

mod support;

use std::path::Path;

use crosslock::crosslock_core::RawPvQSpin;
use crosslock::{Error, Options};
use support::small;

/// The error of opening, read-write and read-only, a file of `bytes`.
fn refused(bytes: &[u8]) -> Error {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s"), bytes).unwrap();
    let options = small(directory.path());
    let error = options.open("s").unwrap_err();
    assert_eq!(options.open_read_only("s").unwrap_err().to_string(), error.to_string());
    assert_eq!(std::fs::read(directory.path().join("s")).unwrap(), bytes, "untouched");
    error
}

/// A good segment with `change` done to its bytes.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Error {
    let directory = tempfile::tempdir().unwrap();
    small(directory.path()).create("s").unwrap();
    let mut bytes = std::fs::read(directory.path().join("s")).unwrap();
    change(&mut bytes);
    refused(&bytes)
}

fn with_u32(offset: usize, value: u32) -> Error {
    changed(|bytes| bytes[offset..][..4].copy_from_slice(&value.to_le_bytes()))
}

fn with_u64(offset: usize, value: u64) -> Error {
    changed(|bytes| bytes[offset..][..8].copy_from_slice(&value.to_le_bytes()))
}

#[test]
fn garbage() {
    let error = refused(b"#!/bin/sh\necho this is no segment\n");
    assert!(error.to_string().contains("is no crosslock segment: it starts with [23, 21"), "{error}");
    assert!(matches!(refused(b"x"), Error::NotASegment { .. }));
    assert!(matches!(refused(&[0; 100_000]), Error::NotASegment { .. }));
}

#[test]
fn too_short() {
    for len in [0, 1, 8, 151, 152, 319] {
        let error = changed(|bytes| bytes.truncate(len));
        assert!(matches!(error, Error::Truncated { size, needed: 320, .. } if size == len as u64), "{error}");
    }
    let error = changed(|bytes| bytes.truncate(320));
    assert!(matches!(error, Error::SizeMismatch { file: 320, .. }), "{error}");
    let error = changed(|bytes| bytes.truncate(bytes.len() - 1));
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[test]
fn too_long() {
    let error = changed(|bytes| bytes.push(0));
    assert!(matches!(error, Error::SizeMismatch { header, file, .. } if file == header + 1), "{error}");
}

#[test]
fn another_byte_order() {
    let error = with_u32(8, 0x0403_0201);
    assert!(matches!(error, Error::ByteOrder { found: 0x0403_0201, .. }));
    assert!(error.to_string().contains("big-endian"), "{error}");
}

#[test]
fn another_version() {
    let error = with_u32(12, 1);
    assert!(matches!(error, Error::AbiVersion { found: 1, known: 3, .. }));
    assert!(error.to_string().contains("version 1, this program knows 3"), "{error}");
}

#[test]
fn unknown_features() {
    assert!(matches!(with_u64(32, 1 << 40), Error::UnknownFeatures { unknown: 0x100_0000_0000, .. }));
}

#[test]
fn numbers_that_do_not_fit_together() {
    let field = |error: Error| match error {
        Error::BadHeader { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(with_u64(16, 128)), "header_size");
    assert_eq!(field(with_u32(56, 4)), "flags");
    assert_eq!(field(with_u32(60, 0)), "slots");
    assert_eq!(field(with_u32(60, 16_384)), "slots");
    assert_eq!(field(with_u32(64, 17)), "counters");
    assert_eq!(field(with_u32(68, 33)), "hash_entries");
    assert_eq!(field(with_u32(68, 16)), "hash_entries");
    assert_eq!(field(with_u32(68, 1 << 31)), "hash_entries");
    assert_eq!(field(with_u32(72, 65_537)), "objects");
    assert_eq!(field(with_u64(80, 0)), "per_cpu");
    assert_eq!(field(with_u64(80, 257)), "per_cpu");
    assert_eq!(field(with_u64(88, 320)), "participants");
    assert_eq!(field(with_u64(96, u64::MAX - 63)), "hash");
    assert_eq!(field(with_u64(104, 1 << 20)), "directory");
    assert_eq!(field(with_u64(112, 1)), "seats");
    assert_eq!(field(with_u64(120, 64)), "alive");
    assert_eq!(field(with_u64(120, u64::MAX - 4095)), "alive");
    assert_eq!(field(with_u64(128, 320)), "heap");
    assert_eq!(field(with_u64(128, u64::MAX - 63)), "heap");
}

#[test]
fn pages_of_another_size() {
    for found in [0, 1, 16_384, u32::MAX] {
        let error = with_u32(76, found);
        assert!(matches!(error, Error::PageSize { found: told, machine: 4096, .. } if told == found));
        assert!(error.to_string().contains("this machine has 4096"), "{error}");
    }
}

#[test]
fn what_is_not_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let options = small(directory.path());
    let found = |name: &str| match options.open(name).unwrap_err() {
        Error::NotRegular { found, .. } => found,
        other => panic!("{other}"),
    };
    std::fs::create_dir(path("directory")).unwrap();
    assert_eq!(found("directory"), "directory");
    options.create("s").unwrap();
    std::os::unix::fs::symlink("s", path("link")).unwrap();
    assert_eq!(found("link"), "symbolic link");
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    assert_eq!(found("socket"), "socket");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(found("fifo"), "fifo");
    let devices = Options::new().directory(Path::new("/dev"));
    assert!(matches!(devices.open("null"), Err(Error::NotRegular { found: "character device", .. })));
    assert!(matches!(options.remove("directory"), Err(Error::NotRegular { .. })));
    assert!(matches!(options.create("directory"), Err(Error::Exists { .. })));
}

#[test]
fn another_type_by_the_same_name() {
    crosslock::plain! { struct Metres { x: u64 } }
    crosslock::plain! { struct Feet { feet: u64 } }

    let segment = Options::new().create_memfd("types").unwrap();
    segment.spin_mutex::<_, RawPvQSpin>("m", Metres { x: 1 }).unwrap();
    let error = segment.spin_mutex::<_, RawPvQSpin>("m", Feet { feet: 3 }).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }));
    let text = error.to_string();
    assert!(text.starts_with("object \"m\" is a pvqspinlock of 72 bytes aligned to 64 with type"), "{text}");
    assert_eq!(text.matches("fingerprint 0x").count(), 2, "{text}");
    assert!(matches!(segment.spin_mutex::<_, RawPvQSpin>("m", [0u64; 2]), Err(Error::Mismatch { .. })));
    let other_lock = segment.spin_mutex::<Metres, crosslock::crosslock_core::RawTas>("m", Metres { x: 1 });
    let text = other_lock.unwrap_err().to_string();
    assert!(text.contains("is a pvqspinlock of") && text.contains("not a tas of"), "{text}");
    assert_eq!(segment.spin_mutex::<_, RawPvQSpin>("m", Metres { x: 2 }).unwrap().lock().unwrap().get().x, 1);
}

#[test]
fn what_has_no_room() {
    let segment = Options::new().objects(2).heap_size(448).create_memfd("room").unwrap();
    for bad in ["", "a\nb", &"x".repeat(48)] {
        assert!(
            matches!(segment.spin_mutex::<_, RawPvQSpin>(bad, 0u8), Err(Error::InvalidName { .. })),
            "{bad:?}"
        );
    }
    let error = segment.spin_mutex::<_, RawPvQSpin>("large", [0u64; 100]).unwrap_err();
    assert!(matches!(error, Error::HeapFull { free: 448, needed: 864 }), "{error}");
    segment.spin_mutex::<_, RawPvQSpin>(&"ü".repeat(23), 0u8).unwrap();
    segment.spin_mutex::<_, RawPvQSpin>("two", [0u8; 65]).unwrap();
    assert_eq!(segment.heap_used().unwrap(), 128 + 192);
    assert!(matches!(
        segment.spin_mutex::<_, RawPvQSpin>("three", 0u8),
        Err(Error::DirectoryFull { entries: 2 })
    ));
    assert!(matches!(
        segment.open_spin_mutex::<u8, crosslock::crosslock_core::RawTas>("none"),
        Err(Error::NoSuchObject { .. })
    ));
}
