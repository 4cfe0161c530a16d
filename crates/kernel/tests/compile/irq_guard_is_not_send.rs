//! As a lock's guard: what it keeps away is of one CPU.
use crosslock_kernel::hosted::Hosted;
use crosslock_kernel::local_irq_save;

fn main() {
    let guard = local_irq_save::<Hosted>();
    std::thread::scope(|scope| drop(scope.spawn(move || drop(guard))));
}
