//! What kinds of guests there are.

use std::fmt;
use std::str::FromStr;

/// An instruction set that guests can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// This machine's, if guests can have it.
    pub const HOST: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else {
        None
    };

    /// Its name in Debian's archive: `"amd64"`, `"arm64"`.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Its name in Rust targets, of QEMU's programs and in `uname -m`: `"x86_64"`, `"aarch64"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The Rust target that programs for guests are built for.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The program that emulates or runs such a machine.
    #[must_use]
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A processor that guests can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cpu {
    /// x86-64: compare-exchange.
    X86_64,
    /// aarch64 without LSE: load-linked / store-conditional only. An LSE instruction raises SIGILL.
    CortexA57,
    /// aarch64 with all that QEMU has, LSE among it.
    Aarch64Max,
}

impl Cpu {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::CortexA57, Self::Aarch64Max];

    /// Its instruction set.
    #[must_use]
    pub fn arch(self) -> Arch {
        match self {
            Self::X86_64 => Arch::X86_64,
            Self::CortexA57 | Self::Aarch64Max => Arch::Aarch64,
        }
    }

    /// Its name here: `"x86-64"`, `"cortex-a57"`, `"max"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::CortexA57 => "cortex-a57",
            Self::Aarch64Max => "max",
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cpu {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|cpu| cpu.name() == name);
        found.ok_or_else(|| format!("there is no processor {name:?}; there are x86-64, cortex-a57 and max"))
    }
}
