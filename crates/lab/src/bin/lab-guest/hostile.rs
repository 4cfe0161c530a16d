//! Writing garbage over a segment, and living with it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::ensure;
use crosslock::crosslock_core::RawTas;
use crosslock::crosslock_core::primitive::{AtomicU64, Ordering};
use crosslock::{Error, LockError, Segment};
use crosslock_lab::Said;

use crate::{say, wait_for_start};

/// Write garbage all over the segment
#[derive(Debug, clap::Args)]
pub(crate) struct ScribbleArgs {
    /// For so long
    #[arg(long)]
    millis: u64,
}

/// Do what users do, and bear all errors
#[derive(Debug, clap::Args)]
pub(crate) struct VisitArgs {
    /// For so long
    #[arg(long)]
    millis: u64,
}

/// Header, tables and the first objects: what others read as more than data.
const DENSE: usize = 96 << 10;

/// Nothing may take longer.
const BOUND: Duration = Duration::from_secs(20);

/// Whatever comes.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// Xorshift, after Marsaglia.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }
}

pub(crate) fn scribble(segment: &Segment, args: &ScribbleArgs) -> anyhow::Result<()> {
    wait_for_start()?;
    let (mut random, start, mut good) = (Random::new(), Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(args.millis) {
        for _ in 0..100 {
            let bytes = if good % 2 == 0 { DENSE } else { segment.size() };
            let word = random.below(bytes.min(segment.size()) / size_of::<u64>());
            let word = segment.base().wrapping_add(word * size_of::<AtomicU64>()).cast::<AtomicU64>();
            // SAFETY: inside of the mapping, which lives on, and aligned; all that is there is accessed as atomics.
            let word = unsafe { &*word };
            // Small numbers look like what belongs there.
            let value = random.next() >> [0, 32, 48, 60][random.below(4)];
            word.store(value, Ordering::Relaxed);
            good += 1;
        }
        // The others shall come to something in between.
        std::thread::sleep(Duration::from_micros(200));
    }
    say(&Said::Visited { good, errors: 0 })
}

pub(crate) fn visit(segment: &Segment, args: &VisitArgs) -> anyhow::Result<()> {
    let mut random = Random::new();
    segment.register()?;
    wait_for_start()?;
    let (start, mut good, mut errors) = (Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_millis(args.millis) {
        let (deed, before) = (random.below(8), Instant::now());
        match act(segment, deed, &mut random) {
            Ok(()) => good += 1,
            Err(error) => {
                // Said as a program would.
                ensure!(!error.to_string().is_empty());
                errors += 1;
            }
        }
        let took = before.elapsed();
        ensure!(took < BOUND, "deed {deed} took {took:?}");
    }
    say(&Said::Visited { good, errors })
}

fn act(segment: &Segment, deed: usize, random: &mut Random) -> Result<(), Error> {
    let name = ["a", "b", "c"][random.below(3)];
    let timeout = Duration::from_millis(random.next() % 5);
    match deed {
        0..3 => match segment.mutex::<u64>(name, 0)?.lock_timeout(timeout) {
            Ok(Some(guard)) => guard.unlock(),
            Ok(None) => Ok(()),
            Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
                suspect.into_guard().mark_consistent();
                Ok(())
            }
            Err(LockError::Failed(error)) => {
                // Somebody must, or nobody would get it any more.
                segment.force_unlock(name)?;
                Err(error)
            }
        },
        3 => match segment.rwlock::<u64>(&format!("{name}{name}"), 0)?.write_timeout(timeout) {
            Ok(Some(guard)) => guard.unlock(),
            Ok(None) => Ok(()),
            Err(LockError::OwnerDied(suspect) | LockError::Poisoned(suspect)) => {
                suspect.into_guard().mark_consistent();
                Ok(())
            }
            Err(LockError::Failed(error)) => Err(error),
        },
        4 => match segment.spin_mutex::<u64, RawTas>(&format!("spin {name}"), 0)?.try_lock()? {
            Some(guard) => guard.unlock(),
            None => Ok(()),
        },
        5 => segment.participants().map(drop),
        6 => {
            // To be looked at: nothing of it is an error.
            let _ = (segment.locks(), segment.objects(), segment.domains(), segment.counters());
            Ok(())
        }
        _ => segment.repair().map(drop),
    }
}
