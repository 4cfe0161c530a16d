//! A guard would restore interrupts on another CPU than the one that disabled them.
use crosslock_kernel::RawSpinLock;
use crosslock_kernel::hosted::Hosted;

static LOCK: RawSpinLock<Hosted, u32> = RawSpinLock::new(0);

fn main() {
    let guard = LOCK.lock_irqsave();
    std::thread::spawn(move || drop(guard));
}
