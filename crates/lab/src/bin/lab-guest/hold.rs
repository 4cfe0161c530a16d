//! Having a robust lock, and waiting for it.

use std::time::Instant;

use anyhow::bail;
use crosslock::{Guard, LockError, Segment};
use crosslock_lab::{Got, Said};

use crate::count::{cpu_us, micros};
use crate::{say, wait_for_start};

/// Take a robust lock, and keep it until a line is read
#[derive(Debug, clap::Args)]
pub(crate) struct HoldArgs {
    /// The object's name
    name: String,
}

/// Wait for a robust lock
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// The object's name
    name: String,
}

pub(crate) fn hold(segment: &Segment, args: &HoldArgs) -> anyhow::Result<()> {
    let mutex = segment.mutex::<u64>(&args.name, 0)?;
    let (guard, _) = take(&mutex)?;
    say(&Said::Holds)?;
    std::io::stdin().read_line(&mut String::new())?;
    guard.unlock()?;
    say(&Said::Released)
}

pub(crate) fn wait(segment: &Segment, args: &WaitArgs) -> anyhow::Result<()> {
    let mutex = segment.mutex::<u64>(&args.name, 0)?;
    // Registered, so that nothing remains to be done but to wait.
    segment.register()?;
    wait_for_start()?;
    let (start, cpu) = (Instant::now(), cpu_us());
    say(&Said::Waits)?;
    let (guard, owner_died) = take(&mutex)?;
    say(&Said::Got(Got { owner_died, waited_us: micros(start.elapsed()), cpu_us: cpu_us() - cpu }))?;
    Ok(guard.unlock()?)
}

fn take(mutex: &crosslock::Mutex<u64>) -> anyhow::Result<(Guard<'_, u64>, bool)> {
    match mutex.lock() {
        Ok(guard) => Ok((guard, false)),
        Err(LockError::OwnerDied(suspect)) => {
            let mut guard = suspect.into_guard();
            guard.mark_consistent();
            Ok((guard, true))
        }
        Err(error) => bail!("{error}"),
    }
}
