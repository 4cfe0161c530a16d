//! Progress bars, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `steps` steps, drawn to standard error if that is a terminal, and gone at its end.
pub(crate) fn bar(steps: u64, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(what.into());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
