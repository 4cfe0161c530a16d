//! From a bare kernel to a machine that programs can run on, and its end.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

use crate::plan::{self, Step};

const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// Mounts what programs expect and carries the plan out.
pub(crate) fn prepare() -> Result<(), Box<dyn Error>> {
    for (kind, path) in MOUNTS {
        fs::create_dir_all(path)?;
        match rustix::mount::mount(kind, path, kind, MountFlags::empty(), None::<&CStr>) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(format!("cannot mount {kind} on {path}: {error}").into()),
        }
    }
    let text = fs::read_to_string(plan::PATH).map_err(|error| format!("{}: {error}", plan::PATH))?;
    for line in text.lines() {
        match plan::parse(line).map_err(|error| error.to_string())? {
            Step::Module { path, parameter } => load(path, parameter)?,
            Step::Bind { vendor, device, driver } => bind(vendor, device, driver)?,
        }
    }
    Ok(())
}

fn load(path: &str, parameter: &str) -> Result<(), Box<dyn Error>> {
    let parameter = CString::new(parameter)?;
    let file = fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    match rustix::system::finit_module(&file, &parameter, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("cannot load {path}: {error}").into()),
    }
}

/// Gives each such device to `driver`, which must be loaded.
fn bind(vendor: u16, device: u16, driver: &str) -> Result<(), Box<dyn Error>> {
    let mut found = false;
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let entry = entry?;
        let is = |name: &str, wanted: u16| {
            let text = fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16) == Ok(wanted)
        };
        if !is("vendor", vendor) || !is("device", device) {
            continue;
        }
        found = true;
        fs::write(entry.path().join("driver_override"), driver)?;
        fs::write("/sys/bus/pci/drivers_probe", entry.file_name().as_encoded_bytes())?;
        let bound = fs::read_link(entry.path().join("driver")).unwrap_or_default();
        if bound.file_name() != Path::new(driver).file_name() {
            return Err(format!("{} did not take the device {:?}", driver, entry.file_name()).into());
        }
    }
    if found { Ok(()) } else { Err(format!("no PCI device {vendor:04x}:{device:04x} for {driver}").into()) }
}

/// Switches the machine off; what comes back is why it is still on.
pub(crate) fn power_off() -> Box<dyn Error> {
    rustix::fs::sync();
    match rustix::system::reboot(RebootCommand::PowerOff) {
        Ok(()) => "the machine does not switch off".into(),
        Err(error) => error.into(),
    }
}
