//! `crosslock agent`: what one process of a virtual machine does for all others.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crosslock::{DomainId, Options, Segment};
use crosslock_ivshmem::guest::{Agent, AgentOptions, Attachment, DEFAULT_SOCKET, Device, Kind};
use crosslock_ivshmem::{PeerId, Vector};

use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::segments::{parse_mode, print};
use crate::stand::{ATTENTION_SPAN, Over, beside, keep_log, stand};

/// In a virtual machine: have the ivshmem device, and wake those who wait for other machines
///
/// Hears the doorbell, tells the others of this machine's deaths, and hands the memory and the doorbell to every process that may connect to
/// its socket. Needs root; the device must belong to vfio-pci, or have no interrupts. If the agent dies nothing is lost: sleepers look
/// every millisecond until there is one again. Ends with SIGTERM or Ctrl-C.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The device's PCI address, as 0000:00:03.0; not needed where there is one only
    #[arg(long, value_name = "ADDRESS")]
    device: Option<String>,
    /// Have vfio-pci take the device first
    #[arg(long)]
    bind: bool,
    /// Where processes of this machine get the device
    #[arg(long, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Who may connect, and use the locks: permissions in octal
    #[arg(long, default_value = "600", value_parser = parse_mode, value_name = "MODE")]
    mode: u32,
    /// Which domain of the segment this machine is, where no server says so
    #[arg(long, value_name = "N")]
    domain: Option<u32>,
}

/// How often it looks what others want where they cannot ring.
const NAP: Duration = Duration::from_millis(1);

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    keep_log();
    let interrupt = Interrupt::install()?;
    let device = args.device.as_deref().map_or_else(Device::find, Device::at)?;
    if args.bind && device.kind() == Kind::Doorbell {
        device.bind_to_vfio()?;
    }
    let agent = AgentOptions::new().socket(&args.socket).mode(args.mode).open(&device)?;
    let domain = match (agent.id(), args.domain) {
        (Some(peer), _) => DomainId::Peer(peer.get()),
        (None, Some(number)) => DomainId::Number(number),
        (None, None) => anyhow::bail!("{device} has no doorbell, so say --domain, another for each machine"),
    };
    let options = Options::new().mode(args.mode);
    let segment = options.open_device_fd(agent.memory(), &device.to_string(), domain)?;
    serve(args, &segment, agent, &interrupt).map(|()| Verdict::Good)
}

fn serve(args: &Args, segment: &Segment, mut agent: Agent, interrupt: &Interrupt) -> anyhow::Result<()> {
    if let Some(me) = agent.id() {
        let attachment = agent.attach()?;
        let bells = agent.attach()?;
        segment.set_bells(move || copies(&bells));
        segment.set_doorbell(me.get(), move |peer, vector| {
            if let Err(error) = attachment.ring(PeerId::new(peer), Vector::new(vector)) {
                tracing::warn!(peer, vector, %error, "cannot ring");
            }
        })?;
    }
    let announce =
        || print(format_args!("domain {} is served at {}", segment.domain(), args.socket.display()));
    let has_doorbell = agent.id().is_some();
    let longest = if has_doorbell { ATTENTION_SPAN } else { NAP };
    let hear = |_| {
        segment.forward();
    };
    let turns = |over: &Over<'_>| {
        while !over.is_over() && agent.turn(hear, Some(longest))?.is_continue() {
            if !has_doorbell {
                segment.forward();
            }
        }
        Ok(())
    };
    beside(interrupt, |over| stand(segment, announce, over), turns)
}

/// None where there is no room for descriptors: then sleepers are late.
fn copies(attachment: &Attachment) -> Vec<OwnedFd> {
    let copies: Result<_, _> = attachment.bells().iter().map(OwnedFd::try_clone).collect();
    copies.unwrap_or_default()
}
