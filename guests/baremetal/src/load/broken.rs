//! A lock that does not lock, to see that the load finds it out.

use crosslock_baremetal::options::Options;
use crosslock_core::Corrupted;
use crosslock_core::primitive::{AtomicU32, Ordering, spin_hint};
use crosslock_kernel::{ArchSpinLock, Failure};

use super::form::{Form, Rival};
use super::run;
use crate::control::check;
use crate::platform::Kernel;

/// How long `Broken` waits between test and set.
const ROOM_TURNS: u32 = 16;

/// How often `Broken` is tried: on a busy machine its CPUs may not run at the same time for a while.
const BROKEN_ATTEMPTS: u32 = 200;

/// A test and a set, with room for another one in between.
struct Broken(AtomicU32);

// SAFETY: none: it does not exclude. What it guards here are atomics, so nothing comes of it but wrong numbers.
unsafe impl ArchSpinLock<Kernel<Broken>> for Broken {
    #[allow(clippy::declare_interior_mutable_const, reason = "a start value")]
    const INIT: Self = Self(AtomicU32::new(0));
    const NAME: &'static str = "broken";

    fn acquire(&self, cx: &Kernel<Self>) -> Result<(), Failure> {
        while !self.try_acquire(cx) {
            spin_hint();
        }
        Ok(())
    }

    fn try_acquire(&self, _cx: &Kernel<Self>) -> bool {
        let free = self.0.load(Ordering::Acquire) == 0;
        if free {
            (0..ROOM_TURNS).for_each(|_| spin_hint());
            self.0.store(1, Ordering::Relaxed);
        }
        free
    }

    unsafe fn release(&self, _cx: &Kernel<Self>) -> Result<(), Corrupted> {
        self.0.store(0, Ordering::Release);
        Ok(())
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn is_contended(&self) -> bool {
        false
    }
}

/// Control: the load must find out that a lock does not lock.
pub(crate) fn broken(options: &Options) -> u32 {
    let mut attempts =
        (0..BROKEN_ATTEMPTS).map(|_| run::<Broken>(Form::IrqSave, Rival::Hardirqs, None, options));
    let violations = attempts.find(|&violations| violations > 0).unwrap_or(0);
    check("broken", violations > 0, format_args!("{violations} violations of a lock that does not lock"))
}
