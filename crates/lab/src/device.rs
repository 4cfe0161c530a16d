//! Finding the device that the segment lies in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Switches the only ivshmem device of this guest on, and gives the file that maps its memory: combined writes where
/// there is such a mapping, which is as good for atomic words and bears any access.
///
/// # Errors
/// Where there is none, or several.
pub fn find() -> anyhow::Result<PathBuf> {
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
    let memory = ["resource2_wc", "resource2"].map(|file| device.join(file));
    memory.into_iter().find(|file| file.exists()).context("the device has no memory")
}
