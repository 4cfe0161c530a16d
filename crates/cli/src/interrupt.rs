//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::io;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Set by the first SIGINT or SIGTERM.
#[expect(clippy::disallowed_types, reason = "the type that signal-hook sets; no lock is made of it")]
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<std::sync::atomic::AtomicBool>);

impl Interrupt {
    /// Installs the handlers, once for the process.
    pub(crate) fn install() -> io::Result<Self> {
        static INSTALLED: OnceLock<Interrupt> = OnceLock::new();
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let flag = Arc::default();
        for signal in [SIGINT, SIGTERM] {
            // The second one: ended with the status that shells use.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(INSTALLED.get_or_init(|| Self(flag)).clone())
    }

    /// Whether somebody wants an end.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(core::sync::atomic::Ordering::Relaxed)
    }
}
