//! Whatever the bytes of a segment are, to look at it and to use it costs an error at worst.

mod support;

use std::os::unix::fs::FileExt;

use crosslock::crosslock_core::{RawPvQSpin, RawTas};
use crosslock::{Error, Options, Result, Segment};
use proptest::prelude::*;
use support::small;

/// Does everything that does not wait for a lock.
fn exercise(segment: &Segment) -> Result<()> {
    let mut told = format!("{segment:?} {:?} {:?}", segment.objects(), segment.counters());
    for participant in segment.participants()? {
        told += &format!("{participant:?}");
    }
    let _ = segment.heap_used().map_err(|error| told += &error.to_string());
    if segment.is_read_only() {
        return Ok(());
    }
    let _ = std::thread::scope(|scope| scope.spawn(|| segment.register()).join().unwrap());
    for name in ["one", "two", "new"] {
        for mutex in [
            segment.spin_mutex::<_, RawPvQSpin>(name, 1u64),
            segment.open_spin_mutex::<u64, RawPvQSpin>(name),
        ] {
            let mutex = match mutex {
                Ok(mutex) => mutex,
                Err(error) => {
                    told += &error.to_string();
                    continue;
                }
            };
            for _ in 0..2 {
                if let Ok(Some(mut guard)) = mutex.try_lock() {
                    guard.update(|n| *n = n.wrapping_add(1));
                    let _ = guard.unlock().map_err(|error| told += &error.to_string());
                }
            }
        }
        let _ = segment.spin_mutex::<u64, RawTas>(name, 1).map_err(|error| told += &error.to_string());
    }
    told += &exercise_robust(segment);
    assert!(!told.is_empty());
    Ok(())
}

/// The same with locks that are taken over from the dead, and with the tools for them.
fn exercise_robust(segment: &Segment) -> String {
    let mut told = format!("{:?}", segment.locks());
    for name in ["robust", "shared"] {
        let error = match segment.mutex(name, 1u64).and_then(|mutex| Ok(mutex.try_lock().map(drop)?)) {
            Ok(()) => segment.repair().map(drop),
            Err(Error::Corrupted(_) | Error::NotRecoverable) => segment.force_unlock(name).map(drop),
            Err(other) => Err(other),
        };
        let read = || -> Result<u64> {
            let lock = segment.open_rwlock::<u64>(name)?;
            drop(lock.try_write()?);
            Ok(lock.try_read()?.map_or(0, |guard| guard.get()))
        };
        told += &format!("{error:?} {:?}", read());
    }
    told
}

fn open_both(options: &Options) {
    for segment in [options.open("s"), options.open_read_only("s")] {
        let _ = segment.and_then(|segment| exercise(&segment)).map_err(|error| error.to_string());
    }
}

fn good(options: &Options) -> usize {
    let segment = options.create("s").unwrap();
    segment.spin_mutex::<_, RawPvQSpin>("one", 1u64).unwrap();
    segment.spin_mutex::<_, RawPvQSpin>("two", 2u64).unwrap();
    segment.mutex("robust", 3u64).unwrap();
    segment.rwlock("shared", 4u64).unwrap();
    segment.size()
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63), 0u64..1 << 20, any::<u64>()]
            .prop_map(|word| word.to_le_bytes().to_vec()),
        prop_oneof![Just(u32::MAX), 0u32..70_000, any::<u32>()].prop_map(|word| word.to_le_bytes().to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..9000), magic: bool) {
        if magic && bytes.len() >= 16 {
            bytes[..8].copy_from_slice(b"CROSSLCK");
            bytes[8..12].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
            bytes[12..16].copy_from_slice(&3_u32.to_le_bytes());
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("s"), &bytes).unwrap();
        prop_assert!(small(directory.path()).open("s").is_err());
        open_both(&small(directory.path()));
    }

    #[test]
    fn a_changed_header_is_harmless(changes in proptest::collection::vec((0usize..256, value()), 1..4)) {
        let directory = tempfile::tempdir().unwrap();
        let options = small(directory.path());
        good(&options);
        let file = std::fs::File::options().write(true).open(directory.path().join("s")).unwrap();
        for (offset, bytes) in changes {
            file.write_all_at(&bytes, (offset & !3) as u64).unwrap();
        }
        open_both(&options);
    }

    #[test]
    fn a_changed_body_is_harmless(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), value()), 1..200),
        seen_while_open: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let options = small(directory.path());
        let size = good(&options);
        let file = std::fs::File::options().write(true).open(directory.path().join("s")).unwrap();
        let open = options.open("s").unwrap();
        let words = (size - 256) / 8;
        for (turn, (place, bytes)) in changes.into_iter().enumerate() {
            file.write_all_at(&bytes, (256 + 8 * place.index(words)) as u64).unwrap();
            if seen_while_open && turn % 4 == 0 {
                let _ = exercise(&open).map_err(|error| error.to_string());
            }
        }
        prop_assert_eq!(open.size(), size);
        open_both(&options);
    }
}
