//! The breakpoint registers of a traced thread: they stop it before an instruction, and change none.

use std::mem::offset_of;

use libc::user;
use nix::sys::ptrace::{self, AddressType};
use nix::unistd::Pid;

const REGISTERS: usize = offset_of!(user, u_debugreg);
/// Which of them are enabled, two bits each; the rest is 0: for execution.
const CONTROL: usize = 7;

/// Stops `thread` from now on before the instructions at these addresses, of which there are at most four, and nowhere
/// else.
pub(super) fn set(thread: Pid, addresses: &[u64]) -> nix::Result<()> {
    let write = |register: usize, value: u64| {
        let place = REGISTERS + register * size_of::<u64>();
        ptrace::write_user(thread, place as AddressType, value.cast_signed())
    };
    // None may be changed while it is enabled.
    write(CONTROL, 0)?;
    let mut enabled = 0;
    for (register, &address) in addresses.iter().enumerate() {
        write(register, address)?;
        enabled |= 1 << (2 * register);
    }
    write(CONTROL, enabled)
}
