//! Interrupts on the running CPU: RFLAGS.IF.

use x86_64::instructions::interrupts;
pub(crate) use x86_64::instructions::interrupts::{
    are_enabled, disable, enable, without_interrupts as without,
};

/// Whether an interrupt ends a wait also where interrupts are off.
pub(crate) const ENDS_WAIT_WHILE_DISABLED: bool = false;

/// With interrupts off: turns them on, and waits for one. None comes between, since `sti` lets none in before the HLT has begun.
pub(crate) fn enable_and_wait() {
    interrupts::enable_and_hlt();
}

/// With interrupts off: waits for what ends a HLT even so.
pub(crate) fn wait() {
    x86_64::instructions::hlt();
}
