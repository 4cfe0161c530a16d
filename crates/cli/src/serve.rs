//! `crosslock serve`: one segment for the virtual machines and the processes of this host.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use crosslock::{Options, Segment};
use crosslock_ivshmem::{
    Client, ClientOptions, Departure, Error as IvshmemError, Observer, PeerId, Peers, Refusal,
};
use crosslock_ivshmem::{Server, ServerOptions, Vector, peer_process};

use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::segments::{human, parse_mode, parse_size, print};
use crate::stand::{ATTENTION_SPAN, Over, RING, beside, keep_log, stand};

/// Share a segment with virtual machines: an ivshmem server
///
/// Each QEMU that attaches is a domain of the segment, with participants of its own. When it ends, however it ends, the locks of its
/// threads are free at once. Ends with SIGTERM or Ctrl-C, and removes the socket, and the segment if it has created it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where QEMU connects: -chardev socket,path=SOCKET,id=ivs -device ivshmem-doorbell,vectors=V,chardev=ivs
    #[arg(long)]
    socket: PathBuf,
    /// The segment's name: a file in /dev/shm; it is created if it is not there
    #[arg(long)]
    segment: String,
    /// How large a new segment is: a power of two, as QEMU demands
    #[arg(long, default_value = "16M", value_parser = parse_size)]
    size: u64,
    /// Interrupts of each peer: one for its agent, the others for its sleepers
    #[arg(long, default_value_t = 8, value_name = "V")]
    vectors: u16,
    /// Who may connect, and so join: the socket's permissions in octal
    #[arg(long, default_value = "600", value_parser = parse_mode, value_name = "MODE")]
    mode: u32,
    /// For how many kernels a new segment is: this host and its virtual machines
    #[arg(long, default_value_t = 16, value_name = "N")]
    domains: u32,
    /// How many threads of each can use the locks of a new segment
    #[arg(long, default_value_t = 64, value_name = "N")]
    threads: u32,
    /// How many objects a new segment can have
    #[arg(long, default_value_t = 128, value_name = "N")]
    objects: u32,
}

/// Knows which domain each peer is.
struct Keeper<'a> {
    segment: &'a Segment,
    domains: BTreeMap<PeerId, u32>,
}

impl Observer for Keeper<'_> {
    fn joined(&mut self, peer: PeerId, connection: BorrowedFd<'_>, _: &Peers) -> Result<(), Refusal> {
        // This process itself, which rings by it.
        if peer_process(connection)? == Some(rustix::process::getpid()) {
            return Ok(());
        }
        let domain = self.segment.admit(peer.get())?.ok_or("all domains of the segment are taken")?;
        self.domains.insert(peer, domain);
        tracing::info!(%peer, domain, "joined");
        Ok(())
    }

    fn left(&mut self, peer: PeerId, departure: Departure, _: &Peers) {
        let Some(domain) = self.domains.get(&peer).copied() else { return };
        if departure != Departure::HungUp {
            tracing::warn!(%peer, domain, "dropped; it may be alive, so it keeps its locks");
            return;
        }
        self.domains.remove(&peer);
        match self.segment.dismiss(domain) {
            Ok(()) => tracing::info!(%peer, domain, "gone"),
            Err(error) => tracing::error!(%peer, domain, %error, "cannot say that it is gone"),
        }
    }

    fn rung(&mut self, _: Vector, _: &Peers) {
        self.segment.forward();
    }
}

/// Rings as a client of this very server: from any thread.
struct Bells(Mutex<Client>);

impl Bells {
    fn ring(&self, peer: u16, vector: u16) {
        let mut client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (peer, vector) = (PeerId::new(peer), Vector::new(vector));
        let mut rung = client.ring(peer, vector);
        if matches!(rung, Err(IvshmemError::NoSuchPeer { .. })) {
            // It has come since. That there is nobody to listen to any more shows when it rings.
            let _ = client.update();
            rung = client.ring(peer, vector);
        }
        match rung {
            // A vector that a peer has made up is nobody's.
            Ok(()) | Err(IvshmemError::PeerLeft { .. } | IvshmemError::NoSuchVector { .. }) => {}
            Err(error) => tracing::warn!(%peer, %error, "cannot ring"),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    keep_log();
    let interrupt = Interrupt::install()?;
    let options = Options::new()
        .size(args.size)
        .domains(args.domains)
        .participants(args.domains.saturating_mul(args.threads))
        .objects(args.objects);
    let (segment, is_new) = match options.create(&args.segment) {
        Ok(created) => (created, true),
        Err(crosslock::Error::Exists { .. }) => (options.open(&args.segment)?, false),
        Err(error) => return Err(error.into()),
    };
    let served = serve(args, &segment, &interrupt);
    if is_new {
        Segment::remove(&args.segment)?;
    }
    served.map(|()| Verdict::Good)
}

fn serve(args: &Args, segment: &Segment, interrupt: &Interrupt) -> anyhow::Result<()> {
    let server = ServerOptions::new().vectors(args.vectors).mode(args.mode).alarm(RING);
    // Machines of a server that was killed still run, as far as is known, under the ids that it gave them.
    let last = segment.domains().iter().filter(|domain| domain.is_alive).map(|domain| domain.peer).max();
    let first = u16::try_from(last.unwrap_or(0) + 1)
        .context("the ids of all peers are used up; make a new segment")?;
    let server = server.first_id(PeerId::new(first));
    let server = server.bind(&args.socket, segment.descriptor()?)?;
    beside(interrupt, |over| stand_for_host(args, segment, over), |over| answer(segment, server, over))
}

fn answer(segment: &Segment, mut server: Server, over: &Over<'_>) -> anyhow::Result<()> {
    let mut keeper = Keeper { segment, domains: BTreeMap::new() };
    while !over.is_over() && server.turn(&mut keeper, Some(ATTENTION_SPAN))?.is_continue() {}
    Ok(())
}

/// Stands for the host, and rings by a client of this very server.
fn stand_for_host(args: &Args, segment: &Segment, over: &Over<'_>) -> anyhow::Result<()> {
    let client = ClientOptions::new()
        .vectors(args.vectors)
        .connect(&args.socket)
        .context("cannot join its own server")?;
    let bells = Bells(Mutex::new(client));
    segment.set_doorbell(PeerId::SERVER.get(), move |peer, vector| bells.ring(peer, vector))?;
    let (size, domains, socket) =
        (human(segment.size() as u64), segment.domains().len(), args.socket.display());
    let announce = || print(format_args!("serving {}, {size}, {domains} domains, at {socket}", args.segment));
    stand(segment, announce, over)
}
