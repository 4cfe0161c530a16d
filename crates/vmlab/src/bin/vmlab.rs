//! The lab's command.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use vmlab::{Accel, Arch, Cache, Config, Cpu, Exit, Guest, Kernel, Output, setup, toolchain};

/// Real virtual machines for tests of locks in shared memory.
///
/// Exit status: 0 all is well, 2 it could not be done; `boot` and `cargo` end as what they run.
#[derive(Debug, Parser)]
#[command(name = "vmlab")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, download kernels and compilers; with all there, do nothing.
    Setup,
    /// Boot one guest of each kind, and say what with, and how long it took.
    Probe,
    /// Boot a guest and run a program in it, or commands from the terminal, one a line.
    Boot(Boot),
    /// Call cargo so that it builds static programs for guests: `vmlab cargo aarch64 test -p crosslock-core`.
    Cargo {
        /// x86_64 or aarch64.
        #[arg(value_parser = arch)]
        arch: Arch,
        /// For cargo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Boot {
    /// x86-64, cortex-a57 or max.
    cpu: Cpu,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory, in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u32,
    /// Give it an IOMMU, and its ivshmem device to vfio-pci.
    #[arg(long)]
    vfio: bool,
    /// A file to share by ivshmem, 1 MiB long.
    #[arg(long)]
    share: Option<PathBuf>,
    /// A static program of this machine that is to be in /bin there. Can be given several times.
    #[arg(long)]
    program: Vec<PathBuf>,
    /// How long the program may take, in seconds.
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// The program and its arguments: /bin/vmlab-drill machine.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

fn arch(name: &str) -> Result<Arch, String> {
    let found = Arch::ALL.into_iter().find(|arch| arch.name() == name);
    found.ok_or_else(|| "must be x86_64 or aarch64".to_owned())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    let done = match Cli::parse().command {
        Task::Setup => Cache::new().and_then(|cache| setup::run(&cache)).map_err(Into::into).map(|()| 0),
        Task::Probe => probe().map(|()| 0),
        Task::Boot(options) => boot(options),
        Task::Cargo { arch, arguments } => cargo(arch, &arguments),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vmlab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn probe() -> anyhow::Result<()> {
    let cache = Cache::new()?;
    println!("cache: {}", cache.path().display());
    for arch in Arch::ALL {
        let version = Command::new(arch.qemu()).arg("--version").output();
        let version = version.with_context(|| format!("cannot start {}; run `vmlab setup`", arch.qemu()))?;
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        println!("{arch}: {version}");
        println!("{arch}: kernel {}", Kernel::cached(&cache, arch)?.version());
        println!("{arch}: accelerator {}", Accel::best(arch)?);
    }
    for cpu in Cpu::ALL {
        for (what, config) in [("plain", Config::new(cpu)), ("iommu", Config::new(cpu).iommu())] {
            let guest = Guest::boot(config)?;
            let machine = guest.run(["/bin/vmlab-drill", "machine"])?.success()?.text();
            println!(
                "{cpu}, {what}: up in {:.1} s on {}, {machine}",
                guest.boot_time().as_secs_f64(),
                guest.accel()
            );
        }
    }
    Ok(())
}

fn boot(options: Boot) -> anyhow::Result<u8> {
    let mut config = Config::new(options.cpu).cpus(options.cpus).memory_mib(options.memory);
    if let Some(path) = options.share {
        config = config.ivshmem_plain(path, 1 << 20);
    }
    if options.vfio {
        config = config.vfio();
    }
    for program in options.program {
        let name = program.file_name().with_context(|| format!("{} has no name", program.display()))?;
        config = config.program(format!("/bin/{}", name.display()), program.clone());
    }
    let guest = Guest::boot(config)?;
    let limit = Duration::from_secs(options.limit);
    if !options.argv.is_empty() {
        return show(&guest.program(options.argv).limit(limit).run()?);
    }
    let prompt = || {
        if std::io::stdin().is_terminal() {
            eprint!("{}> ", guest.name());
        }
    };
    prompt();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let argv: Vec<&str> = line.split_whitespace().collect();
        if !argv.is_empty() {
            match guest.program(argv).limit(limit).run() {
                Ok(output) => drop(show(&output)?),
                Err(error) => eprintln!("{error}"),
            }
        }
        prompt();
    }
    Ok(0)
}

/// Prints what a program has left; the status to end with.
fn show(output: &Output) -> anyhow::Result<u8> {
    std::io::stdout().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    if !output.exit.is_success() {
        eprintln!("{}", output.exit);
    }
    Ok(match output.exit {
        Exit::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        // As shells have it.
        Exit::Signal(number) => 128u8.saturating_add(u8::try_from(number).unwrap_or(u8::MAX)),
    })
}

fn cargo(arch: Arch, arguments: &[String]) -> anyhow::Result<u8> {
    let mut command = toolchain::cargo(&Cache::new()?, arch)?;
    let status = command.args(arguments).status().context("cannot start cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
