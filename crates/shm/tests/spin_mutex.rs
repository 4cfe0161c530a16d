//! The mutex and its guard.

use std::panic::Location;
use std::sync::Mutex;

use crosslock::crosslock_core::RawLock;
use crosslock::crosslock_core::{Corrupted, Hooks, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{Error, Options, Segment, SegmentContext};

crosslock::plain! {
    /// Twelve bytes: it ends within a word.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Odd {
        a: u32,
        b: [u16; 3],
        c: u8,
        d: i8,
    }
}

const ODD: Odd = Odd { a: 1, b: [2, 3, 4], c: 5, d: -8 };

fn segment() -> Segment {
    Options::new().create_memfd("mutex").unwrap()
}

#[test]
fn data_go_in_and_out() {
    let segment = segment();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("odd", ODD).unwrap();
    let mut guard = mutex.lock().unwrap();
    assert_eq!(guard.get(), ODD);
    guard.set(Odd { d: 9, ..ODD });
    assert_eq!(guard.update(|odd| core::mem::replace(&mut odd.a, 17)), 1);
    let now = Odd { a: 17, d: 9, ..ODD };
    assert_eq!(format!("{guard:?}"), format!("SpinGuard({now:?})"));
    // SAFETY: nobody else uses this segment.
    assert_eq!(unsafe { *guard.as_ref() }, now);
    // SAFETY: nobody else uses this segment.
    unsafe { guard.as_mut() }.b[1] = 33;
    guard.unlock().unwrap();
    assert_eq!(mutex.lock().unwrap().get(), Odd { b: [2, 33, 4], ..now });
}

#[test]
fn a_panic_releases_and_changes_nothing() {
    let segment = segment();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 5u64).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        mutex.lock().unwrap().update(|n| {
            *n = 6;
            panic!("inside");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(mutex.try_lock().unwrap().unwrap().get(), 5);
}

fn excludes<L: RawLock<SegmentContext>>() {
    let segment = segment();
    let mutex = segment.spin_mutex::<[u64; 5], L>(L::NAME, [0; 5]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    mutex.lock().unwrap().update(|all| all.iter_mut().for_each(|n| *n += 1));
                }
            });
        }
    });
    assert_eq!(mutex.lock().unwrap().get(), [1500; 5], "{}", L::NAME);
    assert_eq!(segment.objects()[0].ty.kind.to_string(), L::NAME);
}

#[test]
fn every_lock_excludes() {
    excludes::<RawTas>();
    excludes::<RawTicket>();
    excludes::<RawMcs>();
    excludes::<RawQSpin>();
    excludes::<RawPvQSpin>();
}

#[test]
fn try_lock_tells_what_is_taken() {
    let segment = segment();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u8).unwrap();
    let guard = mutex.try_lock().unwrap().unwrap();
    assert!(mutex.try_lock().unwrap().is_none());
    assert!(mutex.is_locked());
    drop(guard);
    assert!(!mutex.is_locked());
}

#[test]
fn damage_found_by_a_drop_is_told_by_the_next_lock() {
    let segment = segment();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    let scribble = |word: u32| {
        let offset = segment.objects()[0].offset;
        let file = std::fs::File::from(segment.descriptor().unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &word.to_le_bytes(), offset).unwrap();
    };
    let guard = mutex.lock().unwrap();
    scribble(0x77);
    assert!(matches!(guard.unlock(), Err(Error::Corrupted(Corrupted::NotHeld { word: 0x77 }))));

    let again = segment.spin_mutex::<_, RawPvQSpin>("m", 0u64).unwrap();
    scribble(0);
    let guard = again.lock().unwrap();
    scribble(0x78);
    drop(guard);
    scribble(0);
    assert!(matches!(again.lock(), Err(Error::Corrupted(Corrupted::NotHeld { word: 0x78 }))));
    assert!(matches!(again.try_lock(), Err(Error::Corrupted(_))));
}

#[test]
fn hooks_see_the_callers_line() {
    struct Lines(Mutex<Vec<(&'static str, u32)>>);

    impl Hooks for &Lines {
        fn acquired(&self, _: usize, at: &'static Location<'static>) {
            self.0.lock().unwrap().push((at.file(), at.line()));
        }
    }
    let lines = Lines(Mutex::default());
    let segment = segment();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", 0u8).unwrap().with_hooks(&lines);
    let line = line!() + 1;
    drop(mutex.lock().unwrap());
    drop(mutex.try_lock().unwrap());
    assert_eq!(*lines.0.lock().unwrap(), [(file!(), line), (file!(), line + 1)]);
}

#[test]
fn handles_go_between_threads() {
    const fn shared<T: Send + Sync>() {}
    shared::<Segment>();
    shared::<crosslock::SpinMutex<u64>>();
    shared::<Error>();
}

#[test]
fn the_mutex_keeps_the_segment() {
    let mutex = segment().spin_mutex::<_, RawPvQSpin>("m", 3u32).unwrap();
    assert_eq!(mutex.lock().unwrap().get(), 3);
    assert_eq!(mutex.segment().objects().len(), 1);
}

#[test]
fn nothing_at_all_can_be_guarded() {
    let segment = Options::new().heap_size(64).create_memfd("empty").unwrap();
    let mutex = segment.spin_mutex::<_, RawPvQSpin>("m", [0u8; 0]).unwrap();
    assert_eq!(mutex.lock().unwrap().get(), []);
}
