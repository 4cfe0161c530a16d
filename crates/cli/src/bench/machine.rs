//! Where the figures are from, so that they can be quoted.

use std::fmt;
use std::{fs, thread};

use serde::Serialize;

/// The machine that this runs on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    /// CPUs that this process may use.
    cpus: usize,
    kernel: String,
}

impl Machine {
    /// What the kernel tells; not all architectures name their CPU.
    pub(super) fn here() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: model_name(&cpus).unwrap_or(std::env::consts::ARCH).to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cpus == 1 { "" } else { "s" };
        write!(f, "{}, {} CPU{plural}, Linux {}", self.cpu, self.cpus, self.kernel)
    }
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == "model name")
        .map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        assert_eq!(model_name("processor\t: 0\nmodel\t\t: 17\nmodel name\t: A: B\n"), Some("A: B"));
        assert_eq!(model_name("processor\t: 0\nBogoMIPS\t: 50\n"), None);
    }
}
