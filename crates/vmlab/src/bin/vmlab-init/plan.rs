//! What the host wrote into the image for [`machine`](crate::machine) to do: one step a line.

use std::fmt;

/// Where the plan is.
pub(crate) const PATH: &str = "/etc/vmlab.plan";

/// A step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// `module PATH [PARAMETER]`: load this module into the kernel, perhaps with a parameter (`NAME=VALUE`).
    Module { path: &'a str, parameter: &'a str },
    /// `bind VENDOR:DEVICE DRIVER`: give every such PCI device to this driver. The numbers are hexadecimal.
    Bind { vendor: u16, device: u16, driver: &'a str },
}

/// A line that is no step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoStep<'a>(&'a str);

impl fmt::Display for NoStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PATH} has {:?}, which is no step", self.0)
    }
}

pub(crate) fn parse(line: &str) -> Result<Step<'_>, NoStep<'_>> {
    let words: Vec<&str> = line.split(' ').collect();
    let step = match words[..] {
        ["module", path] => Some(Step::Module { path, parameter: "" }),
        ["module", path, parameter] => Some(Step::Module { path, parameter }),
        ["bind", ids, driver] => ids.split_once(':').and_then(|(vendor, device)| {
            let number = |digits| u16::from_str_radix(digits, 16).ok();
            Some(Step::Bind { vendor: number(vendor)?, device: number(device)?, driver })
        }),
        _ => None,
    };
    step.ok_or(NoStep(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_others_refused() {
        let path = "/lib/a.ko";
        assert_eq!(parse("module /lib/a.ko"), Ok(Step::Module { path, parameter: "" }));
        assert_eq!(parse("module /lib/a.ko b=1"), Ok(Step::Module { path, parameter: "b=1" }));
        let bind = Step::Bind { vendor: 0x1af4, device: 0x1110, driver: "vfio-pci" };
        assert_eq!(parse("bind 1af4:1110 vfio-pci"), Ok(bind));
        for line in ["", "module", "bind 1af4 vfio-pci", "bind 1af4:xyz vfio-pci", "unbind a b"] {
            assert_eq!(parse(line), Err(NoStep(line)));
        }
    }
}
