//! A lock that sleeps, while one that spins is held.
use crosslock_kernel::hosted::{Hosted, RealTime};
use crosslock_kernel::{MaySleep, RawSpinLock, SpinLock};

type P = Hosted<RealTime>;

fn main() {
    let (raw, sleeping) = (RawSpinLock::<P, _>::new(0), SpinLock::<P, _>::new(0));
    let mut may_sleep = MaySleep::here().unwrap();
    let spinning = raw.lock_atomic(&may_sleep);
    let asleep = sleeping.lock_sleeping(&mut may_sleep);
    drop((asleep, spinning));
}
