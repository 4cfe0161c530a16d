//! A reader does not change what others read.
use crosslock_kernel::RwSpinLock;
use crosslock_kernel::hosted::Hosted;

fn main() {
    let lock = RwSpinLock::<Hosted, _>::new(0);
    *lock.read() += 1;
}
