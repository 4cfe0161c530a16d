//! Standing for a domain of a segment: what the server does for this host, and an agent for its virtual machine.

use core::time::Duration;

use crosslock::Segment;
use crosslock_ivshmem::Vector;

/// The vector of all rings: what is wanted stands in the segment.
pub(crate) const RING: Vector = Vector::new(0);

/// How often the loops look whether they are to end.
pub(crate) const ATTENTION_SPAN: Duration = Duration::from_millis(200);

/// Tells the other domains of this one's deaths, until it is over; `announce`s when it stands.
pub(crate) fn stand(
    segment: &Segment,
    announce: impl FnOnce() -> std::io::Result<()>,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let agent = segment.stand_for_domain()?;
    announce()?;
    while !is_over() {
        agent.watch(ATTENTION_SPAN);
    }
    Ok(())
}
