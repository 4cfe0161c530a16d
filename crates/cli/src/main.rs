//! The `crosslock` command.

mod agent;
mod bench;
mod child;
mod duration;
mod exit;
mod interrupt;
mod kind;
mod pingpong;
mod prng;
mod progress;
mod segments;
mod serve;
mod stand;
mod stats;
/// Steps by the x86-64 debugger interface.
#[cfg(target_arch = "x86_64")]
mod stepkill;
mod top;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Verdict;

/// Locks for memory that is shared between threads, processes and virtual machines: torture them, measure
/// them, look at them.
///
/// Exit status: 0 all is well, 1 a check failed, 2 the command was used wrongly or could not do its work.
#[derive(Debug, Parser)]
#[command(name = "crosslock", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Torture(torture::Args),
    Pingpong(pingpong::Args),
    #[cfg(target_arch = "x86_64")]
    Stepkill(stepkill::Args),
    Create(segments::CreateArgs),
    Ls(segments::LsArgs),
    Inspect(segments::InspectArgs),
    Top(top::Args),
    Repair(segments::RepairArgs),
    Unlock(segments::UnlockArgs),
    Dismiss(segments::DismissArgs),
    Rm(segments::RmArgs),
    Serve(serve::Args),
    Agent(agent::Args),
    #[command(hide = true)]
    BenchWorker(bench::WorkerArgs),
    #[command(hide = true)]
    TortureWorker(torture::WorkerArgs),
    #[command(hide = true)]
    PingpongReader(pingpong::ReaderArgs),
    #[cfg(target_arch = "x86_64")]
    #[command(hide = true)]
    StepkillVictim(stepkill::VictimArgs),
}

impl Command {
    fn run(self) -> anyhow::Result<Verdict> {
        match self {
            Self::Bench(args) => bench::run(&args),
            Self::Torture(args) => torture::run(&args),
            Self::Pingpong(args) => pingpong::run(&args),
            #[cfg(target_arch = "x86_64")]
            Self::Stepkill(args) => stepkill::run(&args),
            Self::Create(args) => segments::create(&args),
            Self::Ls(args) => segments::ls(&args),
            Self::Inspect(args) => segments::inspect(&args),
            Self::Top(args) => top::run(&args),
            Self::Repair(args) => segments::repair(&args),
            Self::Unlock(args) => segments::unlock(&args),
            Self::Dismiss(args) => segments::dismiss(&args),
            Self::Rm(args) => segments::rm(&args),
            Self::Serve(args) => serve::run(&args),
            Self::Agent(args) => agent::run(&args),
            Self::BenchWorker(args) => bench::run_worker(&args),
            Self::TortureWorker(args) => torture::run_worker(&args),
            Self::PingpongReader(args) => pingpong::run_reader(&args),
            #[cfg(target_arch = "x86_64")]
            Self::StepkillVictim(args) => stepkill::run_victim(&args),
        }
    }
}

fn main() -> ExitCode {
    exit::status(Cli::parse().command.run())
}
