//! `crosslock create | ls | inspect | repair | unlock | dismiss | rm`: segments and what is in them.

mod detail;
mod dismiss;
mod found;
mod inspect;
pub(crate) mod json;
pub(crate) mod people;
mod repair;
pub(crate) mod robust;
mod size;
pub(crate) mod spin;
mod table;
pub(crate) mod time;
mod unlock;

use core::fmt;
use std::io::{self, Write};

use anyhow::bail;
use crosslock::{Options, Segment};
use serde::Serialize;

pub(crate) use self::dismiss::{DismissArgs, run as dismiss};
pub(crate) use self::inspect::{InspectArgs, run as inspect};
pub(crate) use self::repair::{RepairArgs, run as repair};
pub(crate) use self::size::{human, parse_size};
pub(crate) use self::unlock::{UnlockArgs, run as unlock};
use crate::exit::Verdict;

/// Prints a line, and tells if nobody reads it any more.
pub(crate) fn print(line: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Create an empty segment
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name: a file in /dev/shm
    name: String,
    /// Room for objects: 64K, 1M, 2G
    #[arg(long, default_value = "1M", value_parser = parse_size)]
    size: u64,
    /// How many threads can wait for its locks
    #[arg(long, default_value_t = 256, value_name = "N")]
    participants: u32,
    /// How many objects it can have
    #[arg(long, default_value_t = 128, value_name = "N")]
    objects: u32,
    /// How many kernels share it: this one, and virtual machines that see it as the memory of a device. Each has an equal part of the
    /// participants
    #[arg(long, default_value_t = 1, value_name = "N")]
    domains: u32,
    /// How large it is in all, instead of the room for objects: a power of two, for the memory of a device
    #[arg(long, value_parser = parse_size, conflicts_with = "size")]
    total: Option<u64>,
    /// Who may use it, in octal
    #[arg(long, default_value = "600", value_parser = parse_mode)]
    mode: u32,
}

/// List the segments
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Remove segments
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Their names
    #[arg(required_unless_present = "stale")]
    names: Vec<String>,
    /// Remove what ended or killed commands have left behind: temporary segments that nobody has attached
    #[arg(long)]
    stale: bool,
    /// Remove a segment even if somebody has it attached, who then keeps it to himself
    #[arg(long)]
    force: bool,
}

pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no file mode: give three octal digits, such as 660")),
    }
}

pub(crate) fn create(args: &CreateArgs) -> anyhow::Result<Verdict> {
    let options = Options::new()
        .mode(args.mode)
        .participants(args.participants)
        .objects(args.objects)
        .domains(args.domains)
        .heap_size(args.size);
    let options = match args.total {
        Some(total) => options.size(total),
        None => options,
    };
    let segment = options.create(&args.name)?;
    print(format_args!("created {}, {}", args.name, human(segment.size() as u64)))?;
    Ok(Verdict::Good)
}

/// A line of `ls`.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    size: u64,
    state: &'static str,
    participants: usize,
    objects: usize,
    error: Option<String>,
}

impl Listed {
    fn new(name: String) -> Option<Self> {
        match Segment::open_read_only(&name).and_then(|segment| Self::look(&name, &segment)) {
            Ok(listed) => Some(listed),
            // Removed since the directory was read.
            Err(crosslock::Error::NotFound { .. }) => None,
            Err(error) => {
                let error = Some(error.to_string());
                Some(Self { name, size: 0, state: "unusable", participants: 0, objects: 0, error })
            }
        }
    }

    fn look(name: &str, segment: &Segment) -> crosslock::Result<Self> {
        let state = match (segment.is_attached_by_anyone()?, segment.is_temporary()) {
            (true, _) => "in use",
            (false, true) => "stale",
            (false, false) => "idle",
        };
        Ok(Self {
            name: name.to_owned(),
            size: segment.size() as u64,
            state,
            participants: segment.participants()?.len(),
            objects: segment.objects().len(),
            error: None,
        })
    }
}

pub(crate) fn ls(args: &LsArgs) -> anyhow::Result<Verdict> {
    let listed: Vec<_> = Options::new().list()?.into_iter().filter_map(Listed::new).collect();
    if args.json {
        print(serde_json::to_string(&listed)?)?;
        return Ok(Verdict::Good);
    }
    let mut table = table::new(["NAME", "SIZE", "STATE", "PARTICIPANTS", "OBJECTS"]);
    for Listed { name, size, state, participants, objects, .. } in &listed {
        table.add_row([name, &human(*size), *state, &participants.to_string(), &objects.to_string()]);
    }
    print(table::show(&table))?;
    for error in listed.iter().filter_map(|segment| segment.error.as_deref()) {
        print(format_args!("unusable: {error}"))?;
    }
    let stale = listed.iter().filter(|segment| segment.state == "stale").count();
    if stale > 0 {
        print(format_args!(
            "{stale} stale: left by a command that was killed; `crosslock rm --stale` clears them"
        ))?;
    }
    Ok(Verdict::Good)
}

pub(crate) fn rm(args: &RmArgs) -> anyhow::Result<Verdict> {
    for name in &args.names {
        // One that cannot be opened, for it is damaged, cannot be in use either.
        let in_use = Segment::open_read_only(name).and_then(|segment| segment.is_attached_by_anyone());
        if !args.force && in_use.unwrap_or(false) {
            bail!("{name} is attached by a running process; end that one, or remove the name with --force");
        }
        Segment::remove(name)?;
        print(format_args!("removed {name}"))?;
    }
    if args.stale {
        let options = Options::new();
        for name in options.list()? {
            match options.remove_stale(&name) {
                Ok(true) => print(format_args!("removed {name}"))?,
                Ok(false) => {}
                Err(error) => eprintln!("crosslock: {error}"),
            }
        }
    }
    Ok(Verdict::Good)
}
