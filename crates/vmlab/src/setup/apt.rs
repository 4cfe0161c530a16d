//! Debian's archive as each architecture sees it, without a trace on this machine's own package system.
//!
//! apt is given directories of its own and the architecture, and takes its sources and keys from the machine.
//! So it needs no root, and no foreign architecture has to be enabled.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::external;

/// The archive of every architecture, each looked at when it is first asked for.
#[derive(Debug)]
pub(super) struct Archives {
    root: TempDir,
    apts: HashMap<Arch, Apt>,
}

impl Archives {
    pub(super) fn new() -> Result<Self> {
        let root = tempfile::Builder::new().prefix("vmlab-apt-").tempdir();
        let root = root.map_err(Error::io("create a directory in", &std::env::temp_dir()))?;
        Ok(Self { root, apts: HashMap::new() })
    }

    /// The archive of `arch`, with fresh lists.
    pub(super) fn of(&mut self, arch: Arch) -> Result<&Apt> {
        if !self.apts.contains_key(&arch) {
            let apt = Apt::new(arch, self.root.path().join(arch.debian()))?;
            tracing::info!("reading the package lists of {}", arch.debian());
            external::run(apt.command("apt-get").arg("update"))?;
            self.apts.insert(arch, apt);
        }
        Ok(&self.apts[&arch])
    }
}

/// apt, for one architecture.
#[derive(Debug)]
pub(super) struct Apt {
    arch: Arch,
    root: PathBuf,
}

impl Apt {
    fn new(arch: Arch, root: PathBuf) -> Result<Self> {
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let status = root.join("status");
        fs::write(&status, "").map_err(Error::io("create", &status))?;
        Ok(Self { arch, root })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &dyn std::fmt::Display| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        option("APT::Architecture", &self.arch.debian());
        option("APT::Architectures::", &self.arch.debian());
        option("Dir::State", &self.root.join("state").display());
        option("Dir::State::status", &self.root.join("status").display());
        option("Dir::Cache", &self.root.join("cache").display());
        option("APT::Sandbox::User", &"root");
        command.arg("-q").env("LC_ALL", "C");
        command
    }

    /// The packages that `package` depends on, by name.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        Ok(parse_depends(&external::text(self.command("apt-cache").args(["depends", package]))?))
    }

    /// `package` and all that it depends on, and so on, as far as `included`.
    pub(super) fn closure(&self, package: &str, included: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut found = vec![package.to_owned()];
        let mut next = 0;
        while next < found.len() {
            for name in self.depends(&found[next])? {
                if included(&name) && !found.contains(&name) {
                    found.push(name);
                }
            }
            next += 1;
        }
        Ok(found)
    }

    /// Downloads packages and unpacks them at `root`. None of their scripts runs.
    pub(super) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        tracing::info!("downloading {} for {}", packages.join(", "), self.arch.debian());
        let downloads =
            tempfile::tempdir_in(&self.root).map_err(Error::io("create a directory in", &self.root))?;
        external::run(self.command("apt-get").arg("download").args(packages).current_dir(downloads.path()))?;
        let entries = fs::read_dir(downloads.path()).map_err(Error::io("read", downloads.path()))?;
        for entry in entries {
            let archive = entry.map_err(Error::io("read", downloads.path()))?.path();
            external::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
        }
        Ok(())
    }
}

/// The names in the output of `apt-cache depends`; of alternatives, each.
fn parse_depends(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.trim_start().trim_start_matches('|');
        let name = line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("PreDepends: "))?;
        // Virtual packages come as <name>, those of another architecture as name:arch.
        Some(name.split(':').next().unwrap_or(name).to_owned()).filter(|name| !name.starts_with('<'))
    };
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_are_taken() {
        let text = "linux-image-cloud-arm64\n  Depends: linux-image-6.1.0-9-cloud-arm64\n |Depends: a:any\n  \
                    Depends: <virtual>\n    provider\n  PreDepends: b\n  Recommends: c\n  Breaks: d\n";
        assert_eq!(parse_depends(text), ["linux-image-6.1.0-9-cloud-arm64", "a", "b"]);
    }
}
