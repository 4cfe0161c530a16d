//! The image that a guest's kernel unpacks into its root.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use cpio::newc::{Builder, trailer};

use crate::error::{Error, Result};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// A tree of files, by their absolute paths.
#[derive(Debug, Default)]
pub(crate) struct Image(BTreeMap<String, File>);

#[derive(Debug)]
struct File {
    mode: u32,
    bytes: Vec<u8>,
}

impl Image {
    /// Adds a file, or replaces it. `mode` is its permissions.
    pub(crate) fn add(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let named = path.strip_prefix('/').filter(|rest| {
            rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0')
        });
        let Some(name) = named else {
            return Err(Error::InvalidOption {
                option: "a file's path in the guest",
                value: path.to_owned(),
                reason: "must be absolute and plain, as in /bin/name",
            });
        };
        self.0.insert(name.to_owned(), File { mode: REGULAR | mode & 0o7777, bytes: bytes.into() });
        Ok(())
    }

    /// The same with a file of this machine.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        self.add(path, mode, std::fs::read(from).map_err(Error::io("read", from))?)
    }

    /// The archive: directories before what is in them.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut inode = 0;
        let mut entry = |name: &str, mode: u32, bytes: &[u8]| {
            inode += 1;
            let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let mut writer = Builder::new(name).ino(inode).mode(mode).write(&mut *to, size);
            writer.write_all(bytes)?;
            writer.finish().map(drop)
        };
        for name in self.directories() {
            entry(name, DIRECTORY, &[])?;
        }
        for (name, file) in &self.0 {
            entry(name, file.mode, &file.bytes)?;
        }
        trailer(to).map(drop)
    }

    fn directories(&self) -> BTreeSet<&str> {
        let parents = |name| std::iter::successors(parent(name), |name| parent(name));
        self.0.keys().flat_map(|name| parents(name.as_str())).collect()
    }
}

fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn listing(image: &Image) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = Vec::new();
        image.write(&mut archive).unwrap();
        let mut found = Vec::new();
        let mut rest = &archive[..];
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                return found;
            }
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            found.push((entry.name().to_owned(), entry.mode(), bytes));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut image = Image::default();
        image.add("/init", 0o755, "one").unwrap();
        image.add("/lib/modules/a.ko", 0o644, vec![0, 255, 10]).unwrap();
        image.add("/init", 0o700, "two!").unwrap();
        let file = |name: &str, mode, bytes: &[u8]| (name.to_owned(), mode, bytes.to_vec());
        assert_eq!(
            listing(&image),
            [
                file("lib", DIRECTORY, b""),
                file("lib/modules", DIRECTORY, b""),
                file("init", 0o100_700, b"two!"),
                file("lib/modules/a.ko", 0o100_644, &[0, 255, 10]),
            ]
        );
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["init", "/", "//a", "/a/../b", "/a/", "/a\0b"] {
            assert!(Image::default().add(path, 0o644, "").is_err(), "{path:?}");
        }
    }
}
