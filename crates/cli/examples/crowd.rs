//! Something to look at: processes that share a segment, one that keeps a lock for long, and one that dies inside.
//!
//! `cargo run -p crosslock-cli --example crowd -- demo`, and beside it `crosslock top demo`. Ends after a minute.

use std::process::Command;
use std::thread::{Builder, scope, sleep};
use std::time::{Duration, Instant};

use crosslock::{Error, Segment};

const LIFE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [name] => direct(name),
        [name, "shop"] => shop(&Segment::open(name)?),
        [name, "bank"] => bank(&Segment::open(name)?),
        [name, "crash"] => crash(&Segment::open(name)?),
        _ => anyhow::bail!("give the name of a new segment"),
    }
}

/// Starts the others.
fn direct(name: &str) -> anyhow::Result<()> {
    let segment = Segment::create(name)?;
    segment.mutex("account", 0u64)?;
    segment.mutex("orders", 0u64)?;
    segment.rwlock("prices", [0u64; 4])?;
    segment.mutex("journal", 0u64)?;
    let start = |role| Command::new("/proc/self/exe").args([name, role]).spawn();
    let children = ["shop", "shop", "bank", "crash"].map(start);
    for child in children {
        child?.wait()?;
    }
    Ok(Segment::remove(name)?)
}

type Deed<'a> = &'a (dyn Fn() -> Result<(), Error> + Sync);

/// Runs the deeds over and over, each in a thread of that name.
fn play(deeds: &[(&str, Deed<'_>)]) -> anyhow::Result<()> {
    let end = Instant::now() + LIFE;
    scope(|scope| {
        for (name, deed) in deeds {
            let act = move || while Instant::now() < end && deed().is_ok() {};
            Builder::new().name((*name).into()).spawn_scoped(scope, act)?;
        }
        Ok(())
    })
}

fn shop(segment: &Segment) -> anyhow::Result<()> {
    let orders = segment.open_mutex::<u64>("orders")?;
    let prices = segment.open_rwlock::<[u64; 4]>("prices")?;
    let order = || {
        orders.lock()?.update(|n| *n += 1);
        Ok(())
    };
    let browse = || {
        let seen = prices.read()?;
        sleep(Duration::from_millis(20));
        drop(seen);
        Ok(())
    };
    play(&[("buyer", &order), ("seller", &order), ("browser", &browse)])
}

fn bank(segment: &Segment) -> anyhow::Result<()> {
    let account = segment.open_mutex::<u64>("account")?;
    let keep = |time| {
        let mut guard = account.lock()?;
        sleep(time);
        guard.update(|n| *n += 1);
        Ok(())
    };
    let serve = || keep(Duration::from_millis(5));
    let audit = || {
        keep(Duration::from_secs(30))?;
        sleep(Duration::from_secs(1));
        Ok(())
    };
    play(&[("auditor", &audit), ("teller-1", &serve), ("teller-2", &serve)])
}

fn crash(segment: &Segment) -> anyhow::Result<()> {
    let journal = segment.open_mutex::<u64>("journal")?;
    let _guard = journal.lock();
    // As `kill -9` would do it.
    std::process::abort()
}
