//! The lock that is nothing needs a promise about the whole kernel, which safe code cannot give.
use crosslock_kernel::hosted::{Hosted, NotPreemptible, Setup};
use crosslock_kernel::{NoHooks, RawSpinLock, UpUnchecked};

struct Unchecked;

impl Setup for Unchecked {
    type Arch = UpUnchecked;
    type Preemption = NotPreemptible;
    type Hooks = NoHooks;
}

fn main() {
    drop(RawSpinLock::<Hosted<Unchecked>, _>::new(0).lock());
}
