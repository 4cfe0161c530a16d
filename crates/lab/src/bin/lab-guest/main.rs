//! What uses the locks of a segment in a guest, and on the host: one process of a domain.

mod count;
mod field;
mod hold;
mod hostile;
mod join;
mod pingpong;

use std::io::Write as _;

use clap::Parser;
use crosslock_lab::Said;

/// Uses the locks of a segment; says what it finds as JSON, a line at a time; starts when it reads a line
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    join: join::Args,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    Count(count::Args),
    Pingpong(pingpong::Args),
    Hold(hold::HoldArgs),
    Wait(hold::WaitArgs),
    Scribble(hostile::ScribbleArgs),
    Visit(hostile::VisitArgs),
}

/// Says it, at once.
fn say(said: &Said) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, said)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Says that all is ready, and waits for a line.
fn wait_for_start() -> anyhow::Result<()> {
    say(&Said::Ready)?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let segment = args.join.segment()?;
    match args.deed {
        Deed::Count(count) => count::run(&segment, &count),
        Deed::Pingpong(play) => pingpong::run(&segment, &play),
        Deed::Hold(hold) => hold::hold(&segment, &hold),
        Deed::Wait(wait) => hold::wait(&segment, &wait),
        Deed::Scribble(scribble) => hostile::scribble(&segment, &scribble),
        Deed::Visit(visit) => hostile::visit(&segment, &visit),
    }
}
