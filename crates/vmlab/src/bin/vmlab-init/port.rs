//! The virtio-serial port to the host.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmlab::wire::PORT;

/// How long the kernel may take to show the port.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens the port by its name, as soon as it is there.
pub(crate) fn open() -> Result<File, Box<dyn Error>> {
    let start = Instant::now();
    loop {
        if let Some(device) = find()? {
            return Ok(File::options().read(true).write(true).open(device)?);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("no virtio-serial port {PORT:?} within {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn find() -> std::io::Result<Option<PathBuf>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        // A port is there for a moment before it has a name.
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT {
            let device = Path::new("/dev").join(port.file_name());
            return Ok(device.exists().then_some(device));
        }
    }
    Ok(None)
}
