//! How this process comes to the segment.

use std::path::PathBuf;

use anyhow::Context as _;
use crosslock::{DomainId, Options, Segment};
use crosslock_ivshmem::guest::{DEFAULT_SOCKET, Device};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// On the host: the file
    #[arg(long, required_unless_present_any = ["plain", "agent"])]
    file: Option<PathBuf>,
    /// In a guest with an agent: its socket
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT_SOCKET)]
    agent: Option<PathBuf>,
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
        if let Some(socket) = &self.agent {
            return Ok(Options::new().open_guest(socket)?);
        }
        let domain = DomainId::Number(self.plain.context("where the segment is")?);
        Ok(Options::new().open_device(&memory(self.uncombined)?, domain)?)
    }
}

/// Switches the only ivshmem device of this guest on, and gives the file that maps its memory.
fn memory(uncombined: bool) -> anyhow::Result<PathBuf> {
    let device = Device::find()?;
    device.enable()?;
    let combined = device.memory_path();
    Ok(if uncombined { combined.with_file_name("resource2") } else { combined })
}
