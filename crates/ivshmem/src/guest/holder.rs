//! Who else has the device open: a group of VFIO opens once, so a newcomer has the descriptor from those who hold it.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::device::{CONFIG_HEADER, Device};
use super::vfio::{DEVICE_LINK, OpenDevice};
use crate::error::Result;

/// What a search has found.
#[derive(Debug)]
pub(super) enum Search {
    /// A copy of the descriptor of this process.
    Found(OpenDevice, Pid),
    /// Nobody; so many did not let themselves be asked.
    Nobody { hidden: usize },
}

/// Looks through all processes for one that has `device` open, and copies its descriptor. What a process has open may change at any
/// time, so it is the copy that is looked at.
pub(super) fn search(device: &Device) -> Result<Search> {
    let wanted = device.config_header()?;
    let mut hidden = 0;
    // That /proc cannot be read at all shows as nobody.
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        match search_in(pid, &wanted) {
            Ok(Some(found)) => return Ok(Search::Found(found, pid)),
            Ok(None) => {}
            Err(()) => hidden += 1,
        }
    }
    Ok(Search::Nobody { hidden })
}

/// The error says that the process does not let itself be asked.
fn search_in(pid: Pid, wanted: &[u8; CONFIG_HEADER]) -> Result<Option<OpenDevice>, ()> {
    let descriptors = match fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) {
        Ok(descriptors) => descriptors,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(()),
        // It has ended.
        Err(_) => return Ok(None),
    };
    for descriptor in descriptors.flatten() {
        let is_device =
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str().as_bytes() == DEVICE_LINK);
        let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| is_device) else { continue };
        let copy = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
        match copy {
            Ok(copy) => {
                let device = OpenDevice::received(copy).ok();
                if let Some(device) = device.filter(|device| is_same(device, wanted)) {
                    return Ok(Some(device));
                }
            }
            Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => return Err(()),
            // It has ended, or closed it.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Whether an open device is the one that begins so in sysfs: vendor, device and the address of BAR2, all as the bus has them.
fn is_same(device: &OpenDevice, wanted: &[u8; CONFIG_HEADER]) -> bool {
    device.config::<CONFIG_HEADER>().is_ok_and(|found| identity(&found) == identity(wanted))
}

fn identity(header: &[u8; CONFIG_HEADER]) -> (&[u8], &[u8]) {
    let bar2 = usize::try_from(super::device::BAR2).unwrap_or(CONFIG_HEADER);
    (&header[..4], &header[bar2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_nobody_has_open_is_not_found() {
        let bus = tempfile::tempdir().unwrap();
        let directory = bus.path().join("devices/0000:00:03.0");
        fs::create_dir_all(&directory).unwrap();
        let resource = "0x1000 0x10ff 0x0\n0x2000 0x2fff 0x0\n0x10000 0x1ffff 0x0\n";
        for (name, text) in [("vendor", "0x1af4\n"), ("device", "0x1110\n"), ("resource", resource)] {
            fs::write(directory.join(name), text).unwrap();
        }
        let device = Device::on(bus.path(), "0000:00:03.0").unwrap();
        assert!(search(&device).is_err(), "there is no configuration space");
        fs::write(directory.join("config"), [0; 64]).unwrap();
        assert!(matches!(search(&device).unwrap(), Search::Nobody { .. }));
    }

    #[test]
    fn a_device_is_told_by_its_numbers_and_its_memory() {
        let mut one = [0; CONFIG_HEADER];
        let mut other = one;
        // Status bits change, and tell nothing.
        other[6] = 0x10;
        assert_eq!(identity(&one), identity(&other));
        other[0x1c] = 0x40;
        assert_ne!(identity(&one), identity(&other));
        one[2] = 0x10;
        other[0x1c] = 0;
        assert_ne!(identity(&one), identity(&other));
    }
}
