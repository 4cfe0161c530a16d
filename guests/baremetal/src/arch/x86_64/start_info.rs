//! What the hypervisor tells a PVH guest: `struct hvm_start_info` of Xen's public headers.

use core::ffi::CStr;
use core::mem::offset_of;

const MAGIC: u32 = 0x336e_c578;

/// Longest command line that is looked at, in bytes with the NUL.
const MAX_COMMAND_LINE: usize = 4096;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    acpi_rsdp: u64,
}

const _: () = assert!(offset_of!(StartInfo, command_line) == 24);

/// The command line; `None` where there is no start_info, no command line, or it is no UTF-8.
///
/// # Safety
/// `info` is what the hypervisor gave at entry, and nobody has written over that memory.
pub(crate) unsafe fn command_line(info: usize) -> Option<&'static str> {
    if info == 0 {
        return None;
    }
    let info = core::ptr::with_exposed_provenance::<StartInfo>(info);
    // SAFETY: the hypervisor's structure, aligned to 4, identity-mapped, by the caller's word.
    let info = unsafe { info.read_unaligned() };
    if info.magic != MAGIC || info.command_line == 0 {
        return None;
    }
    let text = core::ptr::with_exposed_provenance::<u8>(usize::try_from(info.command_line).ok()?);
    // SAFETY: the hypervisor's string lies in mapped memory; a longer one is cut at the end of what is looked at.
    let bytes = unsafe { core::slice::from_raw_parts(text, MAX_COMMAND_LINE) };
    CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}
