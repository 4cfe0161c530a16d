//! What tests of the ivshmem device run in guests.

mod bells;
mod memory;
mod round_trip;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use crosslock_core::primitive::{AtomicU64, Ordering};
use crosslock_ivshmem::guest::{Agent, AgentOptions, Attachment, DEFAULT_SOCKET, Device, Driver};
use crosslock_ivshmem::{PeerId, Vector};
use rustix::thread::{Gid, Uid};

use crate::memory::Memory;

/// Drives the ivshmem device of this guest
#[derive(Debug, Parser)]
struct Args {
    /// The device's address, if there are several
    #[arg(long)]
    device: Option<String>,
    /// Where the agent listens
    #[arg(long, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Be that user from the start
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    /// Say what sysfs has of the device
    Show,
    /// Be the agent, and say what is rung
    Agent {
        /// The permissions of the socket
        #[arg(long, default_value = "600", value_parser = |text: &str| u32::from_str_radix(text, 8))]
        mode: u32,
    },
    /// Ring a peer, so many times
    Ring {
        /// Whom
        peer: u16,
        /// Which of its vectors
        vector: u16,
        /// How often
        #[arg(default_value_t = 1)]
        times: u32,
    },
    /// Add 1 to the word at an offset, so many times
    Add {
        /// In bytes
        offset: usize,
        /// How often
        times: u64,
    },
    /// Write and read back the word at an offset until the input ends, and say what was not as written
    Hammer {
        /// In bytes
        offset: usize,
        /// Map the device's file, without holding the device: what must not be done
        #[arg(long)]
        without_holding: bool,
    },
    /// Have the kernel reset the device
    Reset {
        /// Forbid it before
        #[arg(long)]
        forbid: bool,
    },
    /// Count the rings of a vector, asleep on the bell that the agent has handed over
    Listen(bells::Args),
    /// Send every ring of vector 1 back to a peer
    Echo {
        /// Which peer
        peer: u16,
    },
    /// Ring a peer that echoes, so many times, and say how long the way there and back took
    RoundTrip {
        /// Which peer
        peer: u16,
        /// How often
        times: u32,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(user) = args.user {
        become_user(user)?;
    }
    let attach = || Attachment::connect(&args.socket);
    match args.deed {
        Deed::Show => show(&device(&args)?)?,
        Deed::Agent { mode } => {
            serve(AgentOptions::new().socket(&args.socket).mode(mode).open(&device(&args)?)?)?
        }
        Deed::Ring { peer, vector, times } => {
            let attachment = attach()?;
            let start = Instant::now();
            for _ in 0..times {
                attachment.ring(PeerId::new(peer), Vector::new(vector))?;
            }
            let each = start.elapsed() / times.max(1);
            say(format_args!(
                "rung by peer {:?}, mapped {}, {each:?} each",
                attachment.id().map(PeerId::get),
                attachment.rings_by_a_store()
            ))?;
        }
        Deed::Add { offset, times } => {
            let attachment = attach()?;
            let memory = Memory::map(attachment.memory(), attachment.memory_size())?;
            for _ in 0..times {
                memory.word(offset)?.fetch_add(1, Ordering::Relaxed);
            }
            say(format_args!("added {times}"))?;
        }
        Deed::Hammer { offset, without_holding: false } => {
            let attachment = attach()?;
            hammer(Memory::map(attachment.memory(), attachment.memory_size())?.word(offset)?)?;
        }
        Deed::Hammer { offset, without_holding: true } => {
            let device = device(&args)?;
            device.enable()?;
            hammer(Memory::map(device.open_memory()?, device.memory_size())?.word(offset)?)?;
        }
        Deed::Reset { forbid } => {
            let device = device(&args)?;
            if forbid {
                device.forbid_reset()?;
            }
            let reset = format!("/sys/bus/pci/devices/{device}/reset");
            std::fs::write(&reset, "1").with_context(|| format!("{reset} does nothing"))?;
            say(format_args!("reset"))?;
        }
        Deed::Listen(args) => bells::listen(&args, &attach()?)?,
        Deed::Echo { peer } => round_trip::echo(&device(&args)?, PeerId::new(peer))?,
        Deed::RoundTrip { peer, times } => round_trip::measure(&device(&args)?, PeerId::new(peer), times)?,
    }
    Ok(())
}

fn device(args: &Args) -> crosslock_ivshmem::Result<Device> {
    args.device.as_deref().map_or_else(Device::find, Device::at)
}

fn say(line: core::fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Gives all power away.
fn become_user(user: u32) -> anyhow::Result<()> {
    ensure!(user != 0, "that is root");
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_gid(Gid::from_raw(user))?;
    rustix::thread::set_thread_uid(Uid::from_raw(user))?;
    if let Ok(device) = Device::find() {
        ensure!(device.open_memory().is_err(), "user {user} can open the device without an agent");
    }
    Ok(())
}

fn show(device: &Device) -> anyhow::Result<()> {
    let (kind, size, driver) = (device.kind(), device.memory_size(), device.driver()?);
    say(format_args!(
        "{device} {kind:?} {size} bytes, driver {driver:?}, {}",
        device.memory_path().display()
    ))?;
    Ok(())
}

fn serve(mut agent: Agent) -> anyhow::Result<()> {
    let driver = agent.driver();
    let (mapped, had_from) = (driver.map(Driver::rings_by_a_store), driver.and_then(Driver::had_from));
    say(format_args!("peer {:?} mapped {mapped:?} had from {had_from:?}", agent.id().map(PeerId::get)))?;
    let mut said = Ok(());
    while said.is_ok() && agent.turn(|vector| said = say(format_args!("rung {vector}")), None)?.is_continue()
    {
    }
    Ok(said?)
}

/// Says how many reads gave something else than was written just before: zeros or ones from a device that does not answer, other when
/// only the write was lost.
fn hammer(word: &AtomicU64) -> anyhow::Result<()> {
    let ended = std::thread::spawn(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
    say(format_args!("hammering"))?;
    let (mut turns, mut zeros, mut ones, mut other) = (0u64, 0u64, 0u64, 0u64);
    while !ended.is_finished() {
        for _ in 0..1000 {
            turns += 1;
            word.store(turns, Ordering::Relaxed);
            match word.load(Ordering::Relaxed) {
                found if found == turns => {}
                0 => zeros += 1,
                u64::MAX => ones += 1,
                _ => other += 1,
            }
        }
    }
    ended.join().ok().context("the input cannot be read")??;
    say(format_args!("turns {turns} zeros {zeros} ones {ones} other {other}"))?;
    Ok(())
}
