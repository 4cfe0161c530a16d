//! Waiting and kicking by futex: what `pv_wait` and `pv_kick` are on Linux.
//!
//! Each waiter sleeps on a word of its own that counts its kicks ([`PerCpu::kicks`]), not on the word that
//! it waits for:
//!
//! ```text
//!   wait                                   kick
//!   ------------------------------------   ----------------------------
//!   seen = kicks      (Acquire)            change the word
//!   is the word still the same?            kicks += 1     (Release)
//!   sleep while kicks == seen              wake
//! ```
//! A kick that comes before `seen` is read makes the changed word visible, and one that comes after makes
//! the sleep end: no kick is lost, and one that nobody waits for costs a system call and no more.
//!
//! [`PerCpu::kicks`]: crosslock_core::PerCpu::kicks

use core::time::Duration;
use std::time::Instant;

use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use rustix::io::Errno;
use rustix::thread::futex;

/// Longest sleep. No wake-up is known to get lost; should one, it costs this much and no more.
pub(crate) const MAX_SLEEP: Duration = Duration::from_millis(100);

/// The kernel's form of a time.
pub(crate) fn timespec(duration: Duration) -> futex::Timespec {
    futex::Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

/// How long a thread spins before it sleeps, at most, in nanoseconds and in turns: about as long as sleeping and waking take. Who spins
/// longer takes the lock from the one who could use it, or the CPU from its owner. (The kernel's 2^15 turns are for virtual
/// CPUs, whose wake-up goes through a hypervisor.) Figures: docs/measurements.md.
const SPIN_NS: u128 = 10_000;
const SPIN_TURNS: u32 = 1 << 9;

/// Turns of a spin loop before a thread sleeps: as many as fit into the time. How long one takes is measured once, for it differs by
/// a factor of ten between processors, and of a hundred where they are emulated.
pub(crate) fn spin_turns() -> u32 {
    const UNKNOWN: u32 = 0;
    static TURNS: AtomicU32 = AtomicU32::new(UNKNOWN);
    match TURNS.load(Ordering::Relaxed) {
        UNKNOWN => {
            let turns = measure_turns();
            TURNS.store(turns, Ordering::Relaxed);
            turns
        }
        turns => turns,
    }
}

#[cold]
fn measure_turns() -> u32 {
    const SAMPLE: u32 = 32;
    let sample = || {
        let start = Instant::now();
        (0..SAMPLE).for_each(|_| spin_hint());
        start.elapsed().as_nanos()
    };
    // Whoever is preempted meanwhile takes longer.
    let least = (0..4).map(|_| sample()).min().unwrap_or(0).max(1);
    u32::try_from(SPIN_NS * u128::from(SAMPLE) / least).unwrap_or(SPIN_TURNS).clamp(SAMPLE, SPIN_TURNS)
}

/// Sleeps while `word & mask == value`, until a kick, [`MAX_SLEEP`], or a signal.
pub(crate) fn wait(kicks: &AtomicU32, flags: futex::Flags, word: &AtomicU32, mask: u32, value: u32) {
    wait_until(kicks, flags, word, mask, value, &timespec(MAX_SLEEP));
}

/// The same, but sleeps no longer than that; gives `false` if nothing has ended the sleep before.
pub(crate) fn wait_until(
    kicks: &AtomicU32,
    flags: futex::Flags,
    word: &AtomicU32,
    mask: u32,
    value: u32,
    longest: &futex::Timespec,
) -> bool {
    let seen = kicks.load(Ordering::Acquire);
    if word.load(Ordering::Relaxed) & mask != value {
        return true;
    }
    // Whatever ends the sleep (a kick, EAGAIN because one came just before, EINTR, ETIMEDOUT), the caller
    // looks at the word again. Memory that the kernel cannot sleep on (EFAULT, a device's) makes it a spin.
    futex::wait(kicks.as_core(), flags, seen, Some(longest)) != Err(Errno::TIMEDOUT)
}

/// Wakes whoever sleeps on `kicks`.
pub(crate) fn kick(kicks: &AtomicU32, flags: futex::Flags) {
    kicks.fetch_add(1, Ordering::Release);
    wake(kicks, flags);
}

/// The same for kicks that have been counted.
pub(crate) fn wake(kicks: &AtomicU32, flags: futex::Flags) {
    // Fails only on memory that nobody can sleep on.
    let _ = futex::wake(kicks.as_core(), flags, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: futex::Flags = futex::Flags::PRIVATE;

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let (kicks, word) = (AtomicU32::new(0), AtomicU32::new(0x0107));
        let start = Instant::now();
        for _ in 0..100 {
            wait(&kicks, PRIVATE, &word, 0xff, 3);
        }
        assert!(start.elapsed() < Duration::from_secs(5), "slept {:?}", start.elapsed());
    }

    #[test]
    fn a_kick_ends_the_sleep() {
        let (kicks, word) = (AtomicU32::new(0), AtomicU32::new(3));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                word.store(0, Ordering::Relaxed);
                kick(&kicks, PRIVATE);
            });
            while word.load(Ordering::Relaxed) == 3 {
                wait(&kicks, PRIVATE, &word, 0xff, 3);
            }
        });
        assert_eq!(kicks.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_sleep_without_a_kick_ends_by_itself() {
        let (kicks, word) = (AtomicU32::new(0), AtomicU32::new(3));
        wait(&kicks, PRIVATE, &word, 0xff, 3);
    }
}
