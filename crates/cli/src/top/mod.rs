//! `crosslock top`: the locks of a segment at work, on a screen or as text; reads only.
//!
//! `sample` looks and subtracts, `sort` puts in order, `table` makes lines of it, `view` lays them out on a screen,
//! `screen` reads the keys.

mod json;
mod sample;
mod screen;
mod sort;
mod table;
#[cfg(test)]
mod tests;
mod view;

use core::time::Duration;
use std::io::{self, IsTerminal};
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;
use crosslock::Segment;

use self::sample::{Report, Sample};
use self::sort::Sort;
use self::table::Table;
use crate::duration::parse_duration;
use crate::exit::Verdict;
use crate::interrupt::Interrupt;
use crate::segments::print;

/// Watch the locks of a segment: who has each, who waits, how often and how long
///
/// QUEUE: who waits now. WAIT%: what was waited in the interval; 100 is one thread all the time. ACQ/s: acquisitions. CONT%: of
/// them, those that had to wait. MEAN: the mean wait of those. LONGEST: the longest wait of who waits now. HELD: for how long
/// the owner has had it, at least.
///
/// Maps the segment read-only: nothing in it is disturbed. Robust locks count; spin locks only show their state. Readers
/// that find a reader-writer lock open are not counted.
///
/// Keys: q quit, s sort by something else, space pause, arrows and page keys scroll.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The segment's name
    name: String,
    /// How often to look
    #[arg(long, default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Look at one interval, print it, and end
    #[arg(long)]
    once: bool,
    /// Print lines and read no keys; so also where the output is no terminal
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// Print one JSON object for each interval, on a line of its own
    #[arg(long)]
    json: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Mark locks that are held for so long
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    long: Duration,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval < Duration::from_millis(10) => Err("give at least 10ms".into()),
        interval => Ok(interval),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let segment = Segment::open_read_only(&args.name)?;
    if args.once || args.plain || args.json || !io::stdout().is_terminal() {
        print_reports(args, &segment)?;
    } else {
        screen::run(args, &segment)?;
    }
    Ok(Verdict::Good)
}

fn print_reports(args: &Args, segment: &Segment) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let mut sample = Sample::take(segment, None)?;
    loop {
        let due = Instant::now() + args.interval;
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if interrupt.is_raised() {
                return Ok(());
            }
            sleep(left.min(Duration::from_millis(100)));
        }
        let next = Sample::take(segment, Some(&sample))?;
        let mut report = next.report(Some(&sample));
        if !report.is_named {
            bail!("{} was removed: no newcomer finds it, and whoever has it attached goes on", args.name);
        }
        args.sort.apply(&mut report.locks);
        if args.json {
            print(json::report(&args.name, &report, args.long))?;
        } else {
            print(plain(args, &report))?;
        }
        if args.once {
            return Ok(());
        }
        sample = next;
    }
}

/// The same as the screen shows, but as wide as the names are; an empty line after it if another follows.
fn plain(args: &Args, report: &Report) -> String {
    let table = Table::new(report, args.long, None);
    let mut lines = vec![view::summary(&args.name, report), view::totals(report), table.head];
    lines.extend(table.rows.into_iter().map(|(line, _)| line));
    if !args.once {
        lines.push(String::new());
    }
    lines.join("\n")
}
