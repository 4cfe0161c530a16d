//! Plain data under every lock, for ThreadSanitizer: an access that a lock does not order is reported.
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg no_asm" \
//!     TSAN_OPTIONS="suppressions=$PWD/.ci/race.suppressions" \
//!     cargo test --target x86_64-unknown-linux-gnu -p crosslock --test race
//! ```
//! Without the sanitizer it checks that every section counts. It is a program of its own, with threads made by
//! `pthread_create`, because the prebuilt standard library is not instrumented and its own threads and channels
//! would be reported. With `CROSSLOCK_NEGATIVE_CONTROL` set it takes no lock, and must be reported.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use crosslock::crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{Options, Release, SegmentContext, ThreadContext};

const THREADS: usize = 4;
const ROUNDS: usize = 2_000;

/// Runs `body` in as many threads.
fn threads<F: Fn() + Sync>(body: &F) {
    extern "C" fn enter<F: Fn()>(body: *mut c_void) -> *mut c_void {
        // SAFETY: `body` is the reference passed below, which outlives the threads.
        let body = unsafe { &*body.cast::<F>() };
        body();
        core::ptr::null_mut()
    }
    let argument = core::ptr::from_ref(body).cast_mut().cast();
    let started: [libc::pthread_t; THREADS] = core::array::from_fn(|_| {
        let mut thread = 0;
        // SAFETY: `thread` is ours to write, and `body` is shared by reference with threads joined below.
        let error = unsafe { libc::pthread_create(&raw mut thread, core::ptr::null(), enter::<F>, argument) };
        assert_eq!(error, 0, "no thread");
        thread
    });
    for thread in started {
        // SAFETY: created above, joined once.
        let error = unsafe { libc::pthread_join(thread, core::ptr::null_mut()) };
        assert_eq!(error, 0, "no end");
    }
}

struct Plain(UnsafeCell<usize>);

// SAFETY: accessed under the lock under test; that this is enough is what is checked.
unsafe impl Sync for Plain {}

fn count<C: Sync, L: RawLock<C>>(scope: &str, lock: &L, cx: &C, control: bool) {
    let data = Plain(UnsafeCell::new(0));
    let data = &data;
    threads(&|| {
        for _ in 0..ROUNDS {
            if !control {
                lock.acquire(cx).unwrap();
            }
            // SAFETY: the lock is held; without it ThreadSanitizer must speak.
            unsafe { *data.0.get() += 1 };
            if !control {
                // SAFETY: acquired above.
                unsafe { lock.release(cx) }.unwrap();
            }
        }
    });
    // SAFETY: the threads have ended.
    let counted = unsafe { *data.0.get() };
    assert!(control || counted == THREADS * ROUNDS, "{scope} {}: {counted}", L::NAME);
    println!("{scope} {}: {counted} sections", L::NAME);
}

/// The same under the locks that survive a death.
fn count_robust(release: Release) {
    let segment = Options::new().release(release).create_memfd("race").unwrap();
    let (mutex, rwlock) = (segment.mutex("mutex", 0_u64).unwrap(), segment.rwlock("rwlock", 0_u64).unwrap());
    let data = (Plain(UnsafeCell::new(0)), Plain(UnsafeCell::new(0)));
    let data = &data;
    threads(&|| {
        for round in 0..ROUNDS {
            let guard = mutex.lock().unwrap();
            // SAFETY: the mutex is held.
            unsafe { *data.0.0.get() += 1 };
            drop(guard);
            if round % 4 == 0 {
                let guard = rwlock.write().unwrap();
                // SAFETY: nobody else reads or writes.
                unsafe { *data.1.0.get() += 1 };
                drop(guard);
            } else {
                let guard = rwlock.read().unwrap();
                // SAFETY: nobody writes now.
                core::hint::black_box(unsafe { *data.1.0.get() });
                drop(guard);
            }
        }
    });
    // SAFETY: the threads have ended.
    let counted = unsafe { *data.0.0.get() };
    assert!(counted == THREADS * ROUNDS, "robust: {counted}");
    println!("segment robust, released by {release:?}: {counted} sections");
}

fn both<L: RawLock<ThreadContext> + RawLock<SegmentContext>>(control: bool) {
    count("threads", &L::default(), &ThreadContext, control);
    let segment = Options::new().create_memfd("race").unwrap();
    let mutex = segment.spin_mutex::<u64, L>("lock", 0).unwrap();
    count("segment", mutex.raw(), segment.context().unwrap(), control);
}

fn main() {
    let control = std::env::var_os("CROSSLOCK_NEGATIVE_CONTROL").is_some();
    both::<RawTas>(control);
    if !control {
        both::<RawTicket>(control);
        both::<RawMcs>(control);
        both::<RawQSpin>(control);
        both::<RawPvQSpin>(control);
        count_robust(Release::Store);
        count_robust(Release::Exchange);
    }
}
