//! The robust mutex of the C library, shared between processes: what the robust lock is compared with.
//!
//! ```text
//!   object   words 0..8   pthread_mutex_t
//!                  8..    the arena
//! ```
//! The object is one of ours, for it has a name and its place there; its own lock is not used.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;

use anyhow::Context as _;
use crosslock::{Mutex, Segment};
use crosslock_core::primitive::Ordering;

use super::arena::{Arena, WORDS};
use super::subject::{NOT_THERE, Subject};

/// Words before the arena.
const HEAD: usize = 8;
/// Words of the mutex.
const MUTEX: usize = size_of::<libc::pthread_mutex_t>() / size_of::<u64>();
const _: () = assert!(MUTEX <= HEAD && size_of::<libc::pthread_mutex_t>().is_multiple_of(size_of::<u64>()));

const NAME: &str = "torture-pthread";
const CANNOT_MAKE: &str = "cannot make a pthread mutex";

/// The mutex and its arena, in a segment.
pub(crate) struct PthreadMutex(Mutex<[u64; HEAD + WORDS]>);

fn check(status: c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(status)) }
}

/// A free mutex: on Linux it owns nothing and has no addresses in it, so it can be copied to its place, as
/// `PTHREAD_MUTEX_INITIALIZER` is.
fn free() -> io::Result<[u64; MUTEX]> {
    let mut mutex = MaybeUninit::<libc::pthread_mutex_t>::zeroed();
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: room for the attributes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: room for a mutex, of which nobody knows.
    check(unsafe { libc::pthread_mutex_init(mutex.as_mut_ptr(), attributes) })?;
    // SAFETY: initialised above, and not used again.
    check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
    // SAFETY: as many bytes, all of them initialised: zero at first.
    Ok(unsafe { mutex.as_ptr().cast::<[u64; MUTEX]>().read_unaligned() })
}

impl PthreadMutex {
    fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.0.contents().words().as_ptr().cast_mut().cast()
    }

    /// Makes it as it was at first, when nobody uses it: it can lose a wake-up, and then nobody gets it any more.
    pub(super) fn renew(&self) -> anyhow::Result<()> {
        let initial = free().context(CANNOT_MAKE)?;
        let words = self.0.contents().words().iter();
        words.zip(initial).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        Ok(())
    }
}

impl Subject for PthreadMutex {
    const NAME: &'static str = "pthread_mutex_robust";

    fn create(segment: &Segment) -> anyhow::Result<Self> {
        let mut initial = [0; HEAD + WORDS];
        initial[..MUTEX].copy_from_slice(&free().context(CANNOT_MAKE)?);
        Ok(Self(segment.mutex(NAME, initial)?))
    }

    fn open(segment: &Segment) -> anyhow::Result<Self> {
        segment.open_mutex(NAME).map(Self).context(NOT_THERE)
    }

    fn arena(&self) -> Arena<'_> {
        Arena::new(&self.0.contents().words()[HEAD..])
    }

    fn enter<R>(
        &self,
        repair: impl FnOnce(Arena<'_>),
        visit: impl FnOnce(Arena<'_>) -> R,
    ) -> anyhow::Result<R> {
        // SAFETY: initialised before the object had its name, mapped as long as `self`, and not moved.
        match unsafe { libc::pthread_mutex_lock(self.raw()) } {
            libc::EOWNERDEAD => {
                repair(self.arena());
                // SAFETY: this thread has locked it, and was told of the death.
                check(unsafe { libc::pthread_mutex_consistent(self.raw()) })?;
            }
            status => check(status)?,
        }
        let result = visit(self.arena());
        // SAFETY: this thread has locked it.
        check(unsafe { libc::pthread_mutex_unlock(self.raw()) })?;
        Ok(result)
    }

    fn is_free(&self) -> bool {
        // SAFETY: as in `enter`.
        if unsafe { libc::pthread_mutex_trylock(self.raw()) } != 0 {
            return false;
        }
        // SAFETY: this thread has locked it.
        unsafe { libc::pthread_mutex_unlock(self.raw()) == 0 }
    }
}
