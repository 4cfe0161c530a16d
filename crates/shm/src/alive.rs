//! Alive words: how the kernel tells that a thread is dead, whatever killed it, and wakes who waits for that.
//!
//! A thread's alive word is the futex word of a robust pthread mutex that the thread holds for as long as it is
//! registered. The mutex lies astride:
//!
//! ```text
//!      the slot's page of the segment       a page of this process
//!     +-----------------------+--------+----------+---------------+
//!     |                       | word.. | pointers |               |
//!     +-----------------------+--------+----------+---------------+
//!                             |<- pthread_mutex_t ->|
//!
//!   hold      both pages private; libc locks the mutex, which enters it into the thread's robust list
//!   show      word copied into the segment; its page mapped over the first one
//!   death     the kernel walks the list: word = WAITERS | OWNER_DIED, wakes one
//!   leave     a private page with the old bytes over the first one; libc unlocks the mutex; both unmapped
//! ```
//! So libc never looks at a byte that a peer can write, and the kernel only at the word. Steps may end at any
//! instruction: until the word is shown nobody believes it, and what the list says after that is true.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::io;
use std::os::fd::BorrowedFd;

use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_core::{CpuId, Name};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;
use rustix::thread::futex;

use crate::description::generation;
use crate::participant::used_state;
use crate::segment::SegmentContext;

/// In the word: wake one at the owner's death.
const WAITERS: u32 = 0x8000_0000;
/// In the word: its owner is dead.
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// Bytes of the mutex that lie in the segment's page; the pointers come after.
const HEAD: usize = 24;
/// Where in the mutex its entry of the robust list lies.
const LINK: usize = 32;
/// Where in the mutex the word lies: glibc, musl.
const WORD_OFFSETS: [usize; 2] = [0, 4];

const _: () = assert!(size_of::<libc::pthread_mutex_t>() >= LINK + 8);

/// Sleepers are in different processes.
pub(crate) const SHARED: futex::Flags = futex::Flags::empty();

/// The running thread's entry in its robust list. Dropped by the same thread.
#[derive(Debug)]
pub(crate) struct AliveWord {
    /// Of two pages.
    base: NonNull<u8>,
    page: usize,
    generation: u32,
    /// What libc wrote into the first page.
    head: [u8; HEAD],
    word: u32,
    /// Of the word in the page.
    offset: usize,
}

impl AliveWord {
    /// Enters the running thread's list, in private memory.
    pub(crate) fn hold() -> io::Result<Self> {
        let page = page_size();
        // SAFETY: a new mapping at an address of the kernel's choice overlaps with nothing.
        let base = unsafe { mmap_anonymous(core::ptr::null_mut(), 2 * page, READ_WRITE, MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut held =
            Self { base, page, generation: generation(), head: [0; HEAD], word: 0, offset: page - HEAD };
        match lock(held.mutex()).and_then(|()| held.read_back()) {
            Ok(()) => Ok(held),
            Err(error) => {
                // Leaked: the list may have an entry in it.
                core::mem::forget(held);
                Err(error)
            }
        }
    }

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        // SAFETY: inside the first page.
        unsafe { self.base.add(self.page - HEAD) }.as_ptr().cast()
    }

    /// Finds the word where the kernel will look for it, and keeps what libc wrote.
    fn read_back(&mut self) -> io::Result<()> {
        let in_mutex = word_offset(self.mutex())?;
        // SAFETY: the first bytes of a mutex, in pages of this process that nobody else knows.
        self.head = unsafe { self.mutex().cast::<[u8; HEAD]>().read() };
        let mut word = [0; size_of::<u32>()];
        word.copy_from_slice(&self.head[in_mutex..][..size_of::<u32>()]);
        let word = u32::from_ne_bytes(word);
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        if word & TID_MASK != tid {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "libc's robust mutexes are of unknown kind",
            ));
        }
        self.word = tid | WAITERS;
        self.head[in_mutex..][..size_of::<u32>()].copy_from_slice(&self.word.to_ne_bytes());
        self.offset = self.page - HEAD + in_mutex;
        Ok(())
    }

    /// The word of one who lives.
    pub(crate) fn word(&self) -> u32 {
        self.word
    }

    /// Where in the slot's page the word lies.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Maps the page at `at` of the file, which has the word already, over the first one.
    pub(crate) fn show(&self, fd: BorrowedFd<'_>, at: usize) -> io::Result<()> {
        let to = self.base.as_ptr().cast();
        // SAFETY: over a page of our own, of which nobody has a reference.
        unsafe { mmap(to, self.page, READ_WRITE, MapFlags::SHARED | MapFlags::FIXED, fd, at as u64) }?;
        // SAFETY: inside the first page.
        let word = unsafe { self.base.add(self.offset) }.cast::<AtomicU32>();
        // SAFETY: aligned as libc's word is; the page stays mapped until `unlock`.
        let word = unsafe { word.as_ref() };
        // A write, so that the kernel need not bring the page in at the death: a thread that is killed while it is
        // exiting cannot have that done any more. Relaxed: changes nothing.
        word.fetch_or(0, Ordering::Relaxed);
        Ok(())
    }

    /// Leaves the list. On an error the thread stays in it, and its slot must not be given to anybody.
    pub(crate) fn leave(self) -> io::Result<()> {
        core::mem::ManuallyDrop::new(self).withdraw()
    }

    fn withdraw(&mut self) -> io::Result<()> {
        // In the child of a fork libc has emptied the list.
        if self.generation == generation() {
            self.unlock()?;
        }
        // SAFETY: mapped by `hold` with this length; nothing refers to it any more.
        unsafe { munmap(self.base.as_ptr().cast(), 2 * self.page) }?;
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        let to = self.base.as_ptr().cast();
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: over a page of our own, of which nobody has a reference.
        unsafe { mmap_anonymous(to, self.page, READ_WRITE, flags) }?;
        // SAFETY: the first bytes of the mutex, in pages of this process that nobody else knows.
        unsafe { self.mutex().cast::<[u8; HEAD]>().write(self.head) };
        // SAFETY: a mutex as this thread has locked it.
        check(unsafe { libc::pthread_mutex_unlock(self.mutex()) })
    }
}

impl Drop for AliveWord {
    fn drop(&mut self) {
        // On an error the pages stay, and the entry with them.
        let _ = self.withdraw();
    }
}

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Makes a robust mutex of zeroed memory, and locks it.
fn lock(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: ours to write.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: memory of a mutex that nobody uses yet.
    check(unsafe { libc::pthread_mutex_init(mutex, attributes) })?;
    // SAFETY: initialised above; on Linux it owns nothing.
    check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_mutex_lock(mutex) })
}

/// Where in `mutex`, which was locked just now, the kernel will look for the word.
fn word_offset(mutex: *mut libc::pthread_mutex_t) -> io::Result<usize> {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct RobustList {
        first: usize,
        futex_offset: isize,
        pending: usize,
    }
    let mut list: *const RobustList = core::ptr::null();
    let mut len = 0_usize;
    // SAFETY: both are ours to be written; 0 is the running thread.
    if unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut list, &raw mut len) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, "libc keeps no robust list");
    if list.is_null() || len != size_of::<RobustList>() {
        return Err(unknown());
    }
    // SAFETY: libc gave it to the kernel, for the life of this thread, which alone writes it.
    let list = unsafe { list.read() };
    let entry = mutex.addr() + LINK;
    let offset = LINK.checked_add_signed(list.futex_offset);
    offset.filter(|offset| WORD_OFFSETS.contains(offset) && list.first == entry).ok_or_else(unknown)
}

/// Wakes all who sleep on the word.
pub(crate) fn wake_all(word: &AtomicU32) {
    // Fails only on memory that nobody can sleep on.
    let _ = futex::wake(word.as_core(), SHARED, i32::MAX.unsigned_abs());
}

/// Whether the word says that its owner is dead.
pub(crate) const fn is_of_dead(word: u32) -> bool {
    word & OWNER_DIED != 0
}

impl SegmentContext {
    /// Where in the file of this domain the page of `slot`, one of its own, lies.
    pub(crate) fn alive_page(&self, slot: CpuId) -> usize {
        match self.home() {
            Some(home) => home.alive_page(self.index(slot)),
            None => self.published_page(slot),
        }
    }

    fn published_page(&self, slot: CpuId) -> usize {
        self.geometry().alive + slot.index() * self.geometry().page_size
    }

    /// Where in a page the word of who is or was in `slot` lies, unless somebody has overwritten it.
    fn alive_offset(&self, slot: CpuId) -> Option<usize> {
        let record = self.records().get(slot.index())?;
        // Acquire: who sees where the next one's word is, sees that the one before is not in the slot any more.
        let offset = record.alive_offset.load(Ordering::Acquire) as usize;
        let head = self.geometry().page_size - HEAD;
        WORD_OFFSETS.iter().any(|in_mutex| offset == head + in_mutex).then_some(offset)
    }

    /// The alive word of who is or was in `slot`, as near as can be seen: of a thread of this kernel the one that the
    /// kernel marks.
    pub(crate) fn alive_word(&self, slot: CpuId) -> Option<&AtomicU32> {
        let offset = self.alive_offset(slot)?;
        match self.home().filter(|_| self.is_near(slot)) {
            Some(home) => Some(home.word(self.index(slot), offset)),
            None => self.published_word(slot),
        }
    }

    /// The alive word in the segment, which all domains see.
    pub(crate) fn published_word(&self, slot: CpuId) -> Option<&AtomicU32> {
        Some(self.mapping().at(self.published_page(slot) + self.alive_offset(slot)?))
    }

    /// Who is in `slot` now.
    pub(crate) fn holder_of(&self, slot: CpuId) -> Option<Name> {
        let state = self.records().get(slot.index())?.state.load(Ordering::Acquire);
        crate::participant::name(slot, state)
    }

    /// Whether it is proven that `name` is dead or has left. The dead never come back.
    pub(crate) fn has_died(&self, name: Name) -> bool {
        let (Some(record), Some(living)) =
            (self.records().get(name.slot().index()), used_state(name.incarnation()))
        else {
            return true;
        };
        // Acquire: pairs with the Release of who left, or of who found it dead; all that it did is seen.
        if record.state.load(Ordering::Acquire) != living {
            return true;
        }
        // Acquire: pairs with the kernel's exchange.
        let died = self.alive_word(name.slot()).is_some_and(|word| is_of_dead(word.load(Ordering::Acquire)))
            || !self.is_near(name.slot()) && self.has_gone(self.domain_of(name.slot()));
        // If the word was the next one's, then the state is not `name`'s any more.
        died || record.state.load(Ordering::Acquire) != living
    }

    /// Says in the segment what the kernel has said of who was in `slot`, one of this domain.
    pub(crate) fn publish_death(&self, slot: CpuId) {
        if let Some(word) = self.published_word(slot) {
            // Release: whoever sees it sees what the dead one did.
            word.fetch_or(OWNER_DIED, Ordering::Release);
        }
        // The kernel has woken one of those who sleep on it.
        self.alive_word(slot).into_iter().for_each(wake_all);
    }

    /// Release: whoever sees it sees what the dead one did.
    pub(crate) fn mark_word_dead(&self, word: &AtomicU32) {
        word.fetch_or(OWNER_DIED, Ordering::Release);
        wake_all(word);
    }

    /// Says on behalf of who is in `slot` that it has left, to those who sleep until then, too.
    pub(crate) fn mark_dead(&self, slot: CpuId) {
        let published = self.published_word(slot);
        for word in self.alive_word(slot).into_iter().chain(published) {
            self.mark_word_dead(word);
        }
        if self.geometry().domains > 1 {
            self.ring_all();
        }
    }
}
