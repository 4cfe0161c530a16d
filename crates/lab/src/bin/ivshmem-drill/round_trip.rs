//! How long a ring takes to another guest and back: nothing but doorbells, each waited for asleep.

use core::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use crosslock_ivshmem::guest::{Device, Driver};
use crosslock_ivshmem::{PeerId, Vector};

/// Vector 0 is that of the server's alarm.
const VECTOR: Vector = Vector::new(1);

const LONG: Duration = Duration::from_secs(30);

/// Sends rings back until killed.
pub(crate) fn echo(device: &Device, peer: PeerId) -> anyhow::Result<()> {
    let driver = Driver::open(device)?;
    // The one that every driver hears first.
    driver.wait(VECTOR, Some(Duration::ZERO))?;
    crate::say(format_args!("echoes as peer {}", driver.id()))?;
    loop {
        if driver.wait(VECTOR, None)? {
            driver.ring(peer, VECTOR)?;
        }
    }
}

/// Prints `median MICROSECONDS us` and more.
pub(crate) fn measure(device: &Device, peer: PeerId, times: u32) -> anyhow::Result<()> {
    let driver = Driver::open(device)?;
    driver.wait(VECTOR, Some(Duration::ZERO))?;
    let mut trips = Vec::new();
    for _ in 0..times.max(1) {
        let start = Instant::now();
        driver.ring(peer, VECTOR)?;
        ensure!(driver.wait(VECTOR, Some(LONG))?, "peer {peer} has not answered for {LONG:?}");
        trips.push(start.elapsed());
    }
    trips.sort_unstable();
    let at = |part: usize| trips[(trips.len() - 1) * part / 100].as_secs_f64() * 1e6;
    let (median, late, last, mapped) = (at(50), at(99), at(100), driver.rings_by_a_store());
    crate::say(format_args!(
        "{times} round trips: median {median:.1} us, 99 % {late:.1} us, longest {last:.1} us, mapped {mapped}"
    ))?;
    Ok(())
}
