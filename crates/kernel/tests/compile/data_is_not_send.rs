//! Data that must not leave their thread do not through a lock.
use std::rc::Rc;

use crosslock_kernel::RawSpinLock;
use crosslock_kernel::hosted::Hosted;

fn main() {
    let lock = RawSpinLock::<Hosted, _>::new(Rc::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| drop(lock.lock()));
    });
}
