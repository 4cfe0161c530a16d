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
