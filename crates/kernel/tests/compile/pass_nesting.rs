//! What is right compiles: the counterpart of the others here.
use crosslock_kernel::hosted::{Cpu, Hosted, RealTime};
use crosslock_kernel::{MaySleep, RawSpinLock, SpinLock};

type P = Hosted<RealTime>;

fn main() {
    let _cpu = Cpu::claim().unwrap();
    let (raw, inner) = (RawSpinLock::<P, _>::new(0), RawSpinLock::<P, _>::new(0));
    let (sleeping, also) = (SpinLock::<P, _>::new(0), SpinLock::<P, _>::new(0));
    let mut may_sleep = MaySleep::here().unwrap();
    let outermost = sleeping.lock_sleeping(&mut may_sleep);
    let outer = also.lock_sleeping(&mut may_sleep);
    let spinning = raw.lock_atomic(&may_sleep);
    let innermost = inner.lock_atomic(&may_sleep);
    assert!(MaySleep::<P>::here().is_none());
    drop((innermost, spinning, outer, outermost));
    drop(sleeping.lock_sleeping(&mut may_sleep));
}
