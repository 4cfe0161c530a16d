//! What is locked, and sections that check that they are alone.

use core::ops::Deref;

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering, spin_hint};
use crosslock_kernel::{ArchSpinLock, RawSpinLock, RwSpinLock};

use super::form::Form;
use crate::platform::Kernel;

/// Two numbers that are equal outside of sections. Atomics, so that a lock that does not lock is found out by what they say, and
/// not by undefined behaviour.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    inside: AtomicU32,
    one: AtomicU64,
    other: AtomicU64,
}

/// What a section has found, and done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    /// It was alone, or among readers, and found what the last one had left.
    pub(super) right: bool,
    /// It has written.
    pub(super) wrote: bool,
}

impl Guarded {
    fn write(&self) -> Section {
        let alone = self.inside.load(Ordering::Relaxed) == 0;
        self.inside.store(1, Ordering::Relaxed);
        let [one, other] = self.both();
        self.one.store(one + 1, Ordering::Relaxed);
        self.other.store(other + 1, Ordering::Relaxed);
        let undisturbed = self.inside.load(Ordering::Relaxed) == 1;
        self.inside.store(0, Ordering::Relaxed);
        Section { right: alone && undisturbed && one == other, wrote: true }
    }

    fn read(&self) -> Section {
        let [one, other] = self.both();
        let right = self.inside.load(Ordering::Relaxed) == 0 && one == other && self.both() == [one, other];
        Section { right, wrote: false }
    }

    fn both(&self) -> [u64; 2] {
        [self.one.load(Ordering::Relaxed), self.other.load(Ordering::Relaxed)]
    }
}

/// A task writes to a reader-writer lock once in so many sections.
const SECTIONS_PER_WRITE: u64 = 4;

/// A spin lock of the algorithm `L`, and a reader-writer lock that queues with it; each form uses one of them.
pub(super) struct Subject<L: ArchSpinLock<Kernel<L>> + 'static> {
    spin: RawSpinLock<Kernel<L>, Guarded>,
    rw: RwSpinLock<Kernel<L>, Guarded>,
    form: Form,
}

impl<L: ArchSpinLock<Kernel<L>> + 'static> Subject<L> {
    pub(super) fn new(form: Form) -> Self {
        Self { spin: RawSpinLock::new(Guarded::default()), rw: RwSpinLock::new(Guarded::default()), form }
    }

    /// A task's section, the `count`th of its CPU.
    #[inline]
    pub(super) fn task(&self, count: u64) -> Section {
        let Self { spin, rw, .. } = self;
        let writes = count.is_multiple_of(SECTIONS_PER_WRITE);
        match self.form {
            Form::Plain => spin.lock().write(),
            Form::Nested => spin.lock_nested(1).write(),
            Form::Irq => spin.lock_irq().write(),
            Form::IrqSave => spin.lock_irqsave().write(),
            Form::Bh => spin.lock_bh().write(),
            Form::Try => insist(|| spin.try_lock(), Guarded::write),
            Form::TryIrq => insist(|| spin.try_lock_irq(), Guarded::write),
            Form::TryIrqSave => insist(|| spin.try_lock_irqsave(), Guarded::write),
            Form::TryBh => insist(|| spin.try_lock_bh(), Guarded::write),
            Form::ReadWrite if writes => rw.write().write(),
            Form::ReadWrite | Form::ReadWriteIrq if !writes => rw.read().read(),
            Form::ReadWrite | Form::ReadWriteIrq => rw.write_irq().write(),
            Form::TryReadWrite if writes => insist(|| rw.try_write(), Guarded::write),
            Form::TryReadWrite => insist(|| rw.try_read(), Guarded::read),
            Form::ReadWriteIrqSave if writes => rw.write_irqsave().write(),
            Form::ReadWriteIrqSave => rw.read_irqsave().read(),
            Form::ReadWriteBh if writes => rw.write_bh().write(),
            Form::ReadWriteBh => rw.read_bh().read(),
        }
    }

    /// A handler's section. What it has interrupted does not hold the lock, or the form is no good; a reader may.
    pub(super) fn handler(&self) -> Section {
        match self.form {
            Form::ReadWriteIrq => self.rw.read().read(),
            Form::ReadWriteIrqSave | Form::ReadWriteBh => self.rw.write().write(),
            _ => self.spin.lock().write(),
        }
    }

    /// How often was written, by each number.
    pub(super) fn written(&self) -> [u64; 2] {
        let ([a, b], [c, d]) = (self.spin.lock().both(), self.rw.read().both());
        [a + c, b + d]
    }
}

/// Tries until it has the lock.
fn insist<G: Deref<Target = Guarded>>(
    mut attempt: impl FnMut() -> Option<G>,
    section: impl FnOnce(&Guarded) -> Section,
) -> Section {
    loop {
        if let Some(guard) = attempt() {
            return section(&guard);
        }
        spin_hint();
    }
}
