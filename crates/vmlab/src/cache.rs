//! Where what was downloaded and unpacked is kept.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::error::{Error, Result};

/// The directory of the lab's cache: `CROSSLOCK_LAB_CACHE`, or `crosslock-lab` in `XDG_CACHE_HOME` or
/// `~/.cache`.
///
/// It may be deleted at any time; [`setup`](crate::setup::run) fills it again.
#[derive(Clone, Debug)]
pub struct Cache(PathBuf);

impl Cache {
    /// This user's cache.
    ///
    /// # Errors
    /// The environment names none, and no home either.
    pub fn new() -> Result<Self> {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        from("CROSSLOCK_LAB_CACHE")
            .or_else(|| Some(from("XDG_CACHE_HOME")?.join("crosslock-lab")))
            .or_else(|| Some(from("HOME")?.join(".cache/crosslock-lab")))
            .map(Self)
            .ok_or(Error::NoCache)
    }

    /// A cache in this directory.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Its directory, which need not exist.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the unpacked kernel package for `arch` is, if it is.
    pub(crate) fn kernel(&self, arch: Arch) -> PathBuf {
        self.0.join(arch.debian()).join("kernel")
    }

    /// Where the unpacked compiler for `arch` is, if it is.
    pub(crate) fn rust(&self, arch: Arch) -> PathBuf {
        self.0.join(arch.debian()).join("rust")
    }

    /// Makes the directory `path` in one step: `fill` gets an empty one, which takes that name when it is done.
    ///
    /// Two who do this at once both succeed, and the first one's stays.
    pub(crate) fn fill(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let parent = path.parent().unwrap_or(path);
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let partial = tempfile::Builder::new()
            .prefix(".partial-")
            .tempdir_in(parent)
            .map_err(Error::io("create a directory in", parent))?;
        fill(partial.path())?;
        match std::fs::rename(partial.path(), path) {
            Ok(()) => {
                // Its name is gone already.
                let _ = partial.keep();
                Ok(())
            }
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(Error::io("create", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_filled_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("amd64/kernel");
        let failed = Cache::fill(&path, |partial| {
            std::fs::write(partial.join("half"), "x").unwrap();
            Err(Error::NoCache)
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        for text in ["first", "second"] {
            Cache::fill(&path, |partial| {
                std::fs::write(partial.join("whole"), text).unwrap();
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(std::fs::read_to_string(path.join("whole")).unwrap(), "first");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
