//! What runs in a guest: a thread of a domain that uses a lock.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Parser;
use crosslock::crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};
use crosslock::{DomainId, LockError, Options, Segment, SegmentContext};
use crosslock_ivshmem::guest::Device;

/// Uses the locks of a segment as a thread of a domain
#[derive(Debug, Parser)]
struct Args {
    /// The memory; without it the only ivshmem device of this guest
    #[arg(long)]
    memory: Option<PathBuf>,
    /// Which domain this kernel is
    #[arg(long)]
    domain: u32,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    /// Enter so many critical sections under a lock
    Count {
        /// Its algorithm, and the object's name
        lock: String,
        /// How many
        turns: u64,
    },
    /// Take the robust lock of that name, say so, and keep it
    Hold {
        /// The object's name
        name: String,
    },
}

/// What a section changes: both are equal outside.
type Pair = [u64; 2];

fn turn(pair: &mut Pair) -> bool {
    let was_whole = pair[0] == pair[1];
    pair[0] += 1;
    pair[1] += 1;
    was_whole
}

fn count<L: RawLock<SegmentContext>>(segment: &Segment, turns: u64) -> anyhow::Result<u64> {
    let mutex = segment.spin_mutex::<Pair, L>(L::NAME, [0; 2])?;
    let mut violations = 0;
    for _ in 0..turns {
        let guard = mutex.lock()?;
        let mut pair = guard.get();
        violations += u64::from(!turn(&mut pair));
        let mut guard = guard;
        guard.set(pair);
    }
    Ok(violations)
}

fn count_robust(segment: &Segment, turns: u64) -> anyhow::Result<u64> {
    let mutex = segment.mutex::<Pair>("robust", [0; 2])?;
    let mut violations = 0;
    for _ in 0..turns {
        match mutex.lock() {
            Ok(mut guard) => violations += u64::from(!guard.update(turn)),
            Err(LockError::OwnerDied(_)) => bail!("nobody has died, as far as this guest knows"),
            Err(other) => bail!("{other}"),
        }
    }
    Ok(violations)
}

/// The memory of the only device of this guest, switched on.
fn find() -> anyhow::Result<PathBuf> {
    let device = Device::find()?;
    device.enable()?;
    Ok(device.memory_path())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let memory = args.memory.map_or_else(find, Ok)?;
    let segment = Options::new().open_device(&memory, DomainId::Number(args.domain))?;
    match args.deed {
        Deed::Count { lock, turns } => {
            let violations = match lock.as_str() {
                "robust" => count_robust(&segment, turns)?,
                "tas" => count::<RawTas>(&segment, turns)?,
                "ticket" => count::<RawTicket>(&segment, turns)?,
                "mcs" => count::<RawMcs>(&segment, turns)?,
                "qspinlock" => count::<RawQSpin>(&segment, turns)?,
                "pvqspinlock" => count::<RawPvQSpin>(&segment, turns)?,
                other => bail!("there is no lock {other}"),
            };
            println!("{turns} sections, {violations} violations");
            ensure!(violations == 0, "{violations} violations");
        }
        Deed::Hold { name } => {
            let mutex = segment.mutex::<Pair>(&name, [0; 2])?;
            let guard = mutex.lock().map_err(|error| anyhow::anyhow!("{error}"))?;
            println!("holds");
            std::io::stdout().flush()?;
            std::thread::sleep(core::time::Duration::from_secs(3600));
            drop(guard);
        }
    }
    Ok(())
}
