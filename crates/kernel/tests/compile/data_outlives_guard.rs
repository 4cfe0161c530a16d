//! A reference to the data that outlives the guard.
use crosslock_kernel::RawSpinLock;
use crosslock_kernel::hosted::Hosted;

fn main() {
    let lock = RawSpinLock::<Hosted, _>::new(0);
    let data = {
        let mut guard = lock.lock_irq();
        &mut *guard
    };
    *data += 1;
}
