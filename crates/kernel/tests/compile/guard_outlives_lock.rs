//! A guard that outlives its lock.
use crosslock_kernel::RawSpinLock;
use crosslock_kernel::hosted::Hosted;

fn main() {
    let guard = {
        let lock = RawSpinLock::<Hosted, _>::new(0);
        lock.lock_irqsave()
    };
    drop(guard);
}
