//! What interrupts do while a test runs.

use core::cell::UnsafeCell;

use crosslock_core::primitive::{AtomicU32, Ordering};

use crate::interrupts::Irq;
use crate::smp;

/// Handlers of a test, called on any CPU.
pub(crate) trait Scene: Sync {
    /// An interrupt, with interrupts disabled.
    fn hardirq(&self, irq: Irq) {
        let _ = irq;
    }

    /// Deferred work of a kind.
    fn softirq(&self, vector: u32) {
        let _ = vector;
    }

    /// A non-maskable interrupt.
    fn nmi(&self) {}
}

struct Stage {
    /// Whether there is a scene.
    is_on: AtomicU32,
    scene: UnsafeCell<Option<&'static dyn Scene>>,
}

// SAFETY: the first CPU writes while `is_on` is 0 and no handler looks any more, see `play`.
unsafe impl Sync for Stage {}

static STAGE: Stage = Stage { is_on: AtomicU32::new(0), scene: UnsafeCell::new(None) };

/// Calls `handle` with the scene that is on, if any.
pub(crate) fn now(handle: impl FnOnce(&dyn Scene)) {
    // Acquire: pairs with the Release in `play`.
    if STAGE.is_on.load(Ordering::Acquire) != 0 {
        // SAFETY: not written while `is_on`.
        if let Some(scene) = unsafe { *STAGE.scene.get() } {
            handle(scene);
        }
    }
}

/// On the first CPU: has `scene` handle interrupts on all CPUs below `cpus` while they do `work`.
pub(crate) fn play(scene: &dyn Scene, cpus: usize, work: &(dyn Fn(usize) + Sync)) {
    // SAFETY: nobody has it any more when this returns.
    let for_all = unsafe { core::mem::transmute::<&(dyn Scene + '_), &'static dyn Scene>(scene) };
    // SAFETY: `is_on` is 0, and since it is, every CPU has done work: so no handler looks.
    unsafe { *STAGE.scene.get() = Some(for_all) };
    STAGE.is_on.store(1, Ordering::Release);
    smp::run(cpus, work);
    STAGE.is_on.store(0, Ordering::Release);
    // A handler that still has the scene is over before its CPU does this, which is nothing. So RCU waits for readers.
    smp::run(cpus, &|_| ());
}
