//! Files to and from the host, as programs that copy between a file and their standard streams.

use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes `path` of what comes on standard input; its directories too. `mode` is octal.
///
/// The file appears whole: a program that runs from the old one goes on with it.
pub(crate) fn put(path: &str, mode: &str) -> Result<(), Box<dyn Error>> {
    let mode = u32::from_str_radix(mode, 8).map_err(|_| format!("{mode:?} is no octal mode"))?;
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory)?;
    }
    let partial = format!("{path}.{}.partial", std::process::id());
    let mut file = File::create(&partial)?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    drop(file);
    Ok(fs::rename(&partial, path)?)
}

/// Writes what is in `path` to standard output.
pub(crate) fn get(path: &str) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    io::copy(&mut file, &mut io::stdout().lock())?;
    Ok(())
}
