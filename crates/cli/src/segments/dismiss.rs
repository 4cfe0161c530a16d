//! `crosslock dismiss --force`: says that a virtual machine is gone, where nobody else can know.

use anyhow::{Context as _, bail};
use crosslock::Segment;

use super::print;
use crate::exit::Verdict;

/// Say that a virtual machine is gone with all its threads, so that others get its locks
///
/// The server says so by itself when a machine's QEMU ends. This is for machines that ended after their server did, and for those that have
/// none. A machine that still runs goes on as if it had its locks: so two may be inside.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DismissArgs {
    /// The segment's name
    name: String,
    /// The machine's domain, as `crosslock inspect` shows it
    domain: u32,
    /// Yes, it runs no more
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &DismissArgs) -> anyhow::Result<Verdict> {
    let DismissArgs { name, domain, force } = args;
    if *domain == 0 {
        bail!("domain 0 is this host, which is here");
    }
    let segment = Segment::open(name)?;
    let domains = segment.domains();
    let found = domains.iter().find(|found| found.domain == *domain);
    let found = found.with_context(|| format!("{name} has {} domains, counted from 0", domains.len()))?;
    if !found.is_alive {
        print(format_args!("domain {domain} of {name} is gone already"))?;
        return Ok(Verdict::Good);
    }
    if !force {
        bail!(
            "dismiss takes all locks away from domain {domain} (peer {}); if its virtual machine still runs, two are \
             inside then: say --force if it has ended",
            found.peer
        );
    }
    segment.dismiss(*domain)?;
    print(format_args!("dismissed domain {domain} of {name}"))?;
    Ok(Verdict::Good)
}
