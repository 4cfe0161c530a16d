//! The server: one thread, one epoll, no client that can keep it.
//!
//! At the death of a client, in this order:
//!
//! ```text
//!   1  it is no peer any more     nobody is told of it, or rings it through the server
//!   2  observer.left              what is in the memory says that it is dead
//!   3  "id" to every client       QEMU closes its bells, host clients forget it
//!   4  ring the alarm vector      of every survivor, once for all who died together
//! ```
//! 2 comes before 3 and 4, so whoever is told, by either, finds the death noted: nobody looks too early and sleeps again. 3 comes before
//! 4, so a host client that is woken has the message waiting. A guest hears 4 only: QEMU does not tell it of 3.

mod observer;
mod options;
mod outbox;
mod peers;
mod seat;

use core::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

pub use self::observer::{Departure, Observer, Refusal};
pub use self::options::ServerOptions;
pub use self::peers::Peers;

use self::outbox::Outbox;
use self::seat::{Patience, Seat};
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::events::{Events, Source};
use crate::id::{PeerId, Vector};
use crate::listener::{Knock, Listener};
use crate::memory::Memory;
use crate::stopper::Stopper;

/// How many newcomers are let in before the others are served again.
const NEWCOMERS: usize = 16;

/// The time to the next try when the system has no room for messages.
const BREATHER: Duration = Duration::from_millis(50);

/// Clients that have gone, and how.
type Gone = Vec<(PeerId, Departure)>;

/// Why somebody was not let in.
#[derive(Debug, Error)]
enum TurnedAway {
    #[error("all {0} seats are taken")]
    NoSeat(u16),
    #[error("all 65535 ids have been used; only a new server has new ones")]
    NoId,
    #[error("no descriptor was left for it, or no memory: {0}")]
    NoRoom(#[from] Errno),
    #[error("it was refused: {0}")]
    Refused(Refusal),
}

/// An ivshmem server of protocol revision 1: joins virtual machines and host processes over one memory.
///
/// The server is a peer itself, [`PeerId::SERVER`]. Its socket goes when it is dropped, or stopped.
#[derive(Debug)]
pub struct Server {
    /// The first to be dropped: nobody new comes while the others are hung up on.
    listener: Listener,
    peers: Peers,
    events: Events,
    stopper: Stopper,
    memory: Arc<Memory>,
    options: ServerOptions,
    /// Whether somebody was turned away since somebody was let in: once is news.
    has_grumbled: bool,
}

impl Server {
    fn new(options: ServerOptions, path: &Path, memory: OwnedFd) -> Result<Self> {
        let memory = Memory::new(memory)?;
        memory.check_fits_a_bar()?;
        warn_of_few_descriptors(&options);
        let events = Events::new().map_err(Error::io("make an epoll instance"))?;
        let stopper = Stopper::new().map_err(Error::io("make an eventfd"))?;
        let own = make_bells(options.vectors).map_err(Error::io("make an eventfd"))?;
        let listener = Listener::create(path, options.mode)?;

        let watch = || -> Result<(), Errno> {
            for (vector, bell) in (0..).map(Vector::new).zip(&own) {
                events.watch(bell, Source::Bell(vector), EventFlags::IN)?;
            }
            events.watch(&stopper, Source::Stop, EventFlags::IN)?;
            listener.watch(&events)
        };
        watch().map_err(Error::io("watch for events"))?;
        tracing::info!(socket = %path.display(), memory_bytes = memory.size, vectors = options.vectors, "serving");
        let (memory, peers) = (Arc::new(memory), Peers::new(own, options.first_id));
        Ok(Self { listener, peers, events, stopper, memory, options, has_grumbled: false })
    }

    /// Who is there, and can be rung.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Where its socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// What ends it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is [stopped](Stopper::stop); then removes the socket and hangs up.
    ///
    /// Whoever is attached then is not reported as having left: the end of a server is not theirs.
    ///
    /// # Errors
    /// [`Error::Io`] where the operating system does not let it wait for events. Nothing that a client does is an
    /// error.
    pub fn run(mut self, observer: &mut (impl Observer + ?Sized)) -> Result<()> {
        while self.turn(observer, None)?.is_continue() {}
        Ok(())
    }

    /// Serves what there is to serve, after waiting for it for at most `timeout`; it may come back earlier with nothing done. For those who
    /// have a loop of their own: the server's descriptor is readable when there is something, but limits of
    /// time only count during a turn.
    ///
    /// Gives `Break` when it was stopped.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn turn(
        &mut self,
        observer: &mut (impl Observer + ?Sized),
        timeout: Option<Duration>,
    ) -> Result<ControlFlow<()>> {
        let batch = self.events.wait(self.until_due(timeout)).map_err(Error::io("wait for events"))?;
        let now = Instant::now();
        let (mut gone, mut ready, mut rung) = (Gone::new(), Vec::new(), Vec::new());
        let (mut knocked, mut stopped) = (false, false);
        for (source, flags) in batch {
            match source {
                Source::Client(peer) if flags.intersects(EventFlags::HUP | EventFlags::ERR) => {
                    gone.push((peer, Departure::HungUp));
                }
                Source::Client(peer) => ready.push(peer),
                Source::Bell(vector) => rung.push(vector),
                Source::Door => knocked = true,
                Source::Stop => stopped = true,
            }
        }
        gone.extend(self.flush(now, |peer, seat| ready.contains(&peer) || seat.is_starved()));
        gone.extend(self.overdue(now));
        self.bury(gone, observer, now);
        for vector in rung {
            self.hear(vector, observer);
        }
        self.listener.reopen(&self.events, now);
        if knocked {
            self.open_door(observer, now);
        }
        Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// `timeout`, or less if there is something to do before.
    fn until_due(&self, timeout: Option<Duration>) -> Option<Duration> {
        let seats = self.peers.clients.values();
        let deadline = seats.clone().filter_map(Seat::deadline).chain(self.listener.opens()).min();
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let starved = seats.clone().any(Seat::is_starved).then_some(BREATHER);
        [timeout, deadline, starved].into_iter().flatten().min()
    }

    /// Sends what there is for the clients that `wanted` picks; gives those that turn out to have gone.
    fn flush(&mut self, now: Instant, wanted: impl Fn(PeerId, &Seat) -> bool) -> Gone {
        let patience = Patience { handshake: self.options.handshake_timeout, news: self.options.patience };
        let picked = self.peers.clients.iter_mut().filter(|(peer, seat)| wanted(**peer, seat));
        let flushed = picked.map(|(&peer, seat)| (peer, seat.flush(peer, &self.events, patience, now)));
        flushed.filter_map(|(peer, flushed)| Some((peer, flushed.err()?))).collect()
    }

    /// The clients that have not read for too long.
    fn overdue(&self, now: Instant) -> Gone {
        let clients = self.peers.clients.iter();
        let late = clients.filter(|(_, seat)| seat.deadline().is_some_and(|deadline| deadline <= now));
        late.map(|(&peer, _)| (peer, Departure::Dropped)).collect()
    }

    /// What follows a departure: see the top of this file.
    fn bury(&mut self, mut gone: Gone, observer: &mut (impl Observer + ?Sized), now: Instant) {
        if gone.is_empty() {
            return;
        }
        // Telling the others may show that more have gone.
        while !gone.is_empty() {
            gone.retain(|(peer, _)| self.peers.clients.remove(peer).is_some());
            for &(peer, departure) in &gone {
                tracing::info!(%peer, ?departure, "left");
                observer.left(peer, departure, &self.peers);
            }
            for seat in self.peers.clients.values_mut() {
                for &(peer, _) in &gone {
                    seat.outbox.retract(peer, self.options.vectors.into());
                }
            }
            gone = self.flush(now, |_, seat| seat.has_news());
        }
        self.peers.ring_all(self.options.alarm);
    }

    /// Somebody has rung the server.
    fn hear(&self, vector: Vector, observer: &mut (impl Observer + ?Sized)) {
        match self.peers.own[vector.index()].take() {
            Ok(true) => observer.rung(vector, &self.peers),
            // Another peer has taken it.
            Ok(false) => {}
            Err(error) => tracing::warn!(%vector, %error, "cannot take a ring"),
        }
    }

    /// Lets in those who wait outside.
    fn open_door(&mut self, observer: &mut (impl Observer + ?Sized), now: Instant) {
        for _ in 0..NEWCOMERS {
            let admitted = match self.listener.accept() {
                Knock::Newcomer(socket) => self.admit(socket, observer, now),
                Knock::TurnedAway(error) => Err(TurnedAway::NoRoom(error)),
                Knock::Nobody => return,
                Knock::NotNow(error) => {
                    self.grumble(&TurnedAway::NoRoom(error));
                    return self.listener.shut(&self.events, now);
                }
            };
            match admitted {
                Ok(()) => self.has_grumbled = false,
                Err(reason) => self.grumble(&reason),
            }
        }
    }

    fn admit(
        &mut self,
        socket: OwnedFd,
        observer: &mut (impl Observer + ?Sized),
        now: Instant,
    ) -> Result<(), TurnedAway> {
        let max_clients = self.options.max_clients;
        if self.peers.clients.len() >= max_clients.into() {
            return Err(TurnedAway::NoSeat(max_clients));
        }
        let peer = self.peers.next().ok_or(TurnedAway::NoId)?;
        let bells = make_bells(self.options.vectors)?;
        Seat::prepare(&socket, peer, &self.events)?;
        // The last that can go wrong: who was announced to the observer has joined.
        observer.joined(peer, socket.as_fd(), &self.peers).map_err(TurnedAway::Refused)?;
        tracing::info!(%peer, "joined");

        let mut outbox = Outbox::new(peer, &self.memory);
        outbox.introduce(PeerId::SERVER, &self.peers.own);
        for (&other, seat) in &mut self.peers.clients {
            outbox.introduce(other, &seat.bells);
            seat.outbox.introduce(peer, &bells);
        }
        outbox.introduce(peer, &bells);
        // A time beyond what the clock can say is as good as this one.
        let deadline =
            now.checked_add(self.options.handshake_timeout).unwrap_or(now + Duration::from_hours(1 << 20));
        self.peers.seat(peer, Seat::new(socket, bells, outbox, deadline));
        // The newcomer first: nobody is told of one who has gone already.
        let gone = self.flush(now, |of, _| of == peer);
        self.bury(gone, observer, now);
        let gone = self.flush(now, |_, seat| seat.has_news());
        self.bury(gone, observer, now);
        Ok(())
    }

    fn grumble(&mut self, reason: &TurnedAway) {
        if self.has_grumbled {
            tracing::debug!(%reason, "turned somebody away");
        } else {
            tracing::warn!(%reason, "turned somebody away");
        }
        self.has_grumbled = true;
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn make_bells(count: u16) -> Result<Vec<Bell>, Errno> {
    (0..count).map(|_| Bell::new()).collect()
}

fn warn_of_few_descriptors(options: &ServerOptions) {
    let (vectors, clients) = (u64::from(options.vectors), u64::from(options.max_clients));
    let needed = (clients + 1) * vectors + clients + 16;
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < needed
    {
        tracing::warn!(limit, needed, "not enough descriptors for as many clients (ulimit -n)");
    }
}
