//! Runs a PVH kernel under KVM.

mod devices;
mod machine;
mod vcpu;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::devices::Devices;
use crate::machine::Machine;

/// Runs a PVH kernel under KVM, its serial port on standard output.
///
/// Exit status: as QEMU's with `isa-debug-exit`, twice the value that the kernel writes to its exit port, plus 1; 2 if the
/// machine could not be run, 4 if the kernel has not ended in time.
#[derive(Debug, Parser)]
#[command(name = "crosslock-vmm")]
struct Cli {
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Memory, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=2048))]
    memory: u16,
    /// Do not tell the guest that a hypercall wakes halted CPUs (PV_UNHALT), and refuse that hypercall.
    #[arg(long)]
    hide_unhalt: bool,
    /// Tell the guest that its CPUs are dedicated (the real-time hint).
    #[arg(long)]
    realtime: bool,
    /// Run on this machine's first CPUs only, so many of them.
    #[arg(long)]
    on: Option<usize>,
    /// Seconds that the kernel may take.
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// The kernel, an ELF file.
    kernel: PathBuf,
    /// Its command line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// The kernel has not ended in time.
const TIMED_OUT: i32 = 4;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("crosslock-vmm: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Ends with the process where all is well.
fn run(cli: &Cli) -> anyhow::Result<std::convert::Infallible> {
    if let Some(count) = cli.on {
        stay_on(count).with_context(|| format!("cannot stay on {count} CPUs"))?;
    }
    let machine = Machine::new(cli.memory)?;
    let boot = machine.load(&cli.kernel, &cli.words.join(" "))?;
    let devices = Devices::new();
    let vcpus = (0..cli.cpus).map(|id| machine.vcpu(id, cli, boot)).collect::<anyhow::Result<Vec<_>>>()?;
    let (failed, failure) = std::sync::mpsc::channel();
    for vcpu in vcpus {
        let (devices, failed) = (devices.clone(), failed.clone());
        std::thread::Builder::new()
            .spawn(move || {
                let Err(error) = vcpu::run(vcpu, &devices);
                // Whoever listened is gone with the process.
                let _ = failed.send(error);
            })
            .context("cannot start a thread")?;
    }
    match failure.recv_timeout(Duration::from_secs(cli.limit)) {
        Ok(error) => Err(error),
        Err(_) => {
            eprintln!("crosslock-vmm: the kernel has not ended within {} s", cli.limit);
            std::process::exit(TIMED_OUT)
        }
    }
}

/// Keeps this thread, and those that it starts, on the first `count` CPUs.
fn stay_on(count: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in 0..count {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}
