//! Standing for a domain of a segment: what the server does for this host, and an agent for its virtual machine. One thread stands,
//! another serves.

use core::time::Duration;
use std::io;
use std::thread;

use crosslock::Segment;
use crosslock_core::primitive::{AtomicU32, Ordering};
use crosslock_ivshmem::Vector;

use crate::interrupt::Interrupt;

/// The vector of all rings: what is wanted stands in the segment.
pub(crate) const RING: Vector = Vector::new(0);

/// How often the loops look whether they are to end.
pub(crate) const ATTENTION_SPAN: Duration = Duration::from_millis(200);

/// Says on the error output who comes and goes.
pub(crate) fn keep_log() {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false);
    log.with_max_level(tracing::Level::INFO).init();
}

/// Whether both threads are to end.
#[derive(Debug)]
pub(crate) struct Over<'a> {
    interrupt: &'a Interrupt,
    one_has_ended: AtomicU32,
}

impl Over<'_> {
    pub(crate) fn is_over(&self) -> bool {
        self.interrupt.is_raised() || self.one_has_ended.load(Ordering::Relaxed) != 0
    }

    fn end<R>(&self, result: R) -> R {
        self.one_has_ended.store(1, Ordering::Relaxed);
        result
    }
}

/// Stands in a thread of its own and serves in this one, until an interrupt or the end of either.
pub(crate) fn beside(
    interrupt: &Interrupt,
    stand: impl FnOnce(&Over<'_>) -> anyhow::Result<()> + Send,
    serve: impl FnOnce(&Over<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let over = &Over { interrupt, one_has_ended: AtomicU32::new(0) };
    thread::scope(|scope| {
        let stands = scope.spawn(move || over.end(stand(over)));
        let served = over.end(serve(over));
        let stood = stands.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If nobody can stand, the service has ended for that.
        served.and(stood)
    })
}

/// Tells the other domains of this one's deaths, until it is over; `announce`s when it stands.
pub(crate) fn stand(
    segment: &Segment,
    announce: impl FnOnce() -> io::Result<()>,
    over: &Over<'_>,
) -> anyhow::Result<()> {
    let agent = segment.stand_for_domain()?;
    announce()?;
    while !over.is_over() {
        agent.watch(ATTENTION_SPAN);
    }
    Ok(())
}
