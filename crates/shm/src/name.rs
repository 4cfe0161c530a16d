//! Names of segments.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Longest name, in bytes.
const MAX_LEN: usize = 200;

/// Where the segment `name` lies in `directory`.
pub(crate) fn path_in(directory: &Path, name: &str) -> Result<PathBuf> {
    let reason = match name {
        "" => "it is empty",
        _ if name.len() > MAX_LEN => "it is longer than 200 bytes",
        _ if name.contains('/') => "it contains a slash",
        _ if name.starts_with('.') => "it starts with a dot",
        _ if name.contains(char::is_control) => "it contains a control character",
        _ => return Ok(directory.join(name)),
    };
    Err(Error::InvalidName { name: name.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_directory() {
        let directory = Path::new("/dev/shm");
        assert_eq!(path_in(directory, "a b-c.d").unwrap(), Path::new("/dev/shm/a b-c.d"));
        for name in ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\0b", "a\nb", &"x".repeat(201)] {
            assert!(matches!(path_in(directory, name), Err(Error::InvalidName { .. })), "{name:?}");
        }
    }
}
