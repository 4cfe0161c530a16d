//! How this process comes to the segment.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use crosslock::{DomainId, Options, Segment};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// On the host: the file
    #[arg(long, required_unless_present = "plain", conflicts_with = "plain")]
    file: Option<PathBuf>,
    /// In a guest, the memory of whose only ivshmem device it is: this guest is that domain
    #[arg(long, value_name = "DOMAIN")]
    plain: Option<u32>,
    /// Map the device's memory without combining writes
    #[arg(long)]
    uncombined: bool,
}

impl Args {
    pub(crate) fn segment(&self) -> anyhow::Result<Segment> {
        if let Some(file) = &self.file {
            let directory = file.parent().context("a file in a directory")?;
            let name = file.file_name().and_then(|name| name.to_str()).context("a file with a name")?;
            return Ok(Options::new().directory(directory).open(name)?);
        }
        let domain = DomainId::Number(self.plain.context("where the segment is")?);
        Ok(Options::new().open_device(&memory(self.uncombined)?, domain)?)
    }
}

/// Switches the only ivshmem device of this guest on, and gives the file that maps its memory.
fn memory(uncombined: bool) -> anyhow::Result<PathBuf> {
    let devices = Path::new("/sys/bus/pci/devices");
    let is_ivshmem = |device: &PathBuf| {
        let is = |file, id| fs::read_to_string(device.join(file)).is_ok_and(|text| text.trim() == id);
        is("vendor", "0x1af4") && is("device", "0x1110")
    };
    let found: Vec<_> = fs::read_dir(devices)
        .with_context(|| format!("cannot read {}", devices.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_ivshmem)
        .collect();
    let [device] = &found[..] else { bail!("{} ivshmem devices here; one is needed", found.len()) };
    let enable = device.join("enable");
    fs::write(&enable, "1").with_context(|| format!("cannot write {}", enable.display()))?;
    let memory = device.join(if uncombined { "resource2" } else { "resource2_wc" });
    Ok(memory)
}
