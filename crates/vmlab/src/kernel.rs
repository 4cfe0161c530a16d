//! The kernel that guests of an architecture boot, and its modules.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::external;

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Kernel {
    version: String,
    image: PathBuf,
    modules: PathBuf,
}

/// Which modules need which others, and which are none because they are built in.
const INDEXES: [&str; 2] = ["modules.dep", "modules.builtin"];

/// A module of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    name: String,
    path: PathBuf,
}

impl Kernel {
    /// The kernel for `arch` that [`setup`](crate::setup::run) has put into the cache.
    ///
    /// # Errors
    /// There is none.
    pub fn cached(cache: &Cache, arch: Arch) -> Result<Self> {
        Self::unpacked(&cache.kernel(arch))
    }

    /// The kernel of the package that is unpacked at `root`.
    ///
    /// # Errors
    /// There is none.
    pub fn unpacked(root: &Path) -> Result<Self> {
        let versions = root.join("lib/modules");
        let missing = || Error::Missing { what: "kernel", path: root.to_owned() };
        let entry =
            fs::read_dir(&versions).ok().and_then(|mut entries| entries.next()).ok_or_else(missing)?;
        let version = entry.map_err(Error::io("read", &versions))?.file_name().to_string_lossy().into_owned();
        let image = root.join("boot").join(format!("vmlinuz-{version}"));
        if !image.is_file() {
            return Err(missing());
        }
        Ok(Self { modules: versions.join(&version), version, image })
    }

    /// Its version, as `uname -r` in a guest says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file that QEMU boots.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// What of the package somebody needs who boots guests that load `modules`.
    pub(crate) fn files<'a>(&self, modules: &'a [Module]) -> impl Iterator<Item = PathBuf> + use<'a> {
        let indexes = INDEXES.map(|index| self.modules.join(index));
        indexes
            .into_iter()
            .chain([self.image.clone()])
            .chain(modules.iter().map(|module| module.path.clone()))
    }

    /// The modules of these names and all that they depend on, in an order in which they can be loaded. What
    /// is built into the kernel needs no loading and is left out.
    ///
    /// # Errors
    /// A name that the kernel does not know, or unreadable indexes.
    pub fn modules(&self, names: &[impl AsRef<str>]) -> Result<Vec<Module>> {
        let read = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).map_err(Error::io("read", &path))
        };
        let [dep, builtin] = INDEXES.map(read);
        let index = Index::parse(&dep?, &builtin?);
        let mut order = Vec::new();
        for name in names {
            let name = normal(name.as_ref());
            if !index.visit(&name, &mut HashSet::new(), &mut order) {
                return Err(Error::NoModule { kernel: self.version.clone(), module: name });
            }
        }
        Ok(order
            .into_iter()
            .map(|path| Module { name: name_of(&path), path: self.modules.join(path) })
            .collect())
    }
}

impl Module {
    /// Its name, with `_` where its file may have `-`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program that decompresses it, if it needs one.
    pub(crate) fn unpacker(&self) -> Option<&'static str> {
        match self.path.extension().and_then(OsStr::to_str) {
            Some("xz") => Some("xz"),
            Some("zst") => Some("zstd"),
            _ => None,
        }
    }

    /// The module itself, decompressed.
    ///
    /// # Errors
    /// It cannot be read, or not be decompressed.
    pub fn read(&self) -> Result<Vec<u8>> {
        let Some(unpacker) = self.unpacker() else {
            return fs::read(&self.path).map_err(Error::io("read", &self.path));
        };
        Ok(external::run(Command::new(unpacker).args(["-d", "-c"]).arg(&self.path))?.stdout)
    }
}

/// Which modules need which: `modules.dep` and `modules.builtin`.
struct Index {
    /// From the name of a module to its file and the files that it needs.
    loadable: HashMap<String, (String, Vec<String>)>,
    built_in: HashSet<String>,
}

impl Index {
    fn parse(dep: &str, builtin: &str) -> Self {
        let entry = |line: &str| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name_of(path), (path.to_owned(), needs)))
        };
        Self {
            loadable: dep.lines().filter_map(entry).collect(),
            built_in: builtin.lines().map(name_of).collect(),
        }
    }

    /// Appends what `name` needs, then itself, each unless it is there; whether the kernel knows `name`.
    fn visit(&self, name: &str, above: &mut HashSet<String>, order: &mut Vec<String>) -> bool {
        let Some((path, needs)) = self.loadable.get(name) else {
            return self.built_in.contains(name);
        };
        // A circle cannot be loaded in any order, but must not hang this.
        if order.contains(path) || !above.insert(name.to_owned()) {
            return true;
        }
        for need in needs {
            self.visit(&name_of(need), above, order);
        }
        order.push(path.clone());
        true
    }
}

/// `kernel/drivers/vfio/pci/vfio-pci.ko.xz` is `vfio_pci`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/d/vfio/pci/vfio-pci.ko.xz: kernel/d/vfio/pci/vfio-pci-core.ko.xz kernel/v/irqbypass.ko.xz kernel/d/vfio/vfio.ko.xz
kernel/d/vfio/pci/vfio-pci-core.ko.xz: kernel/v/irqbypass.ko.xz kernel/d/vfio/vfio.ko.xz
kernel/d/vfio/vfio.ko.xz:
kernel/v/irqbypass.ko.xz:
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
";

    fn order(names: &[&str]) -> Vec<String> {
        let index = Index::parse(DEP, "kernel/d/virtio/virtio_pci.ko\n");
        let mut order = Vec::new();
        for name in names {
            assert!(index.visit(name, &mut HashSet::new(), &mut order), "{name}");
        }
        order.iter().map(|path| name_of(path)).collect()
    }

    #[test]
    fn needs_come_first_and_once() {
        let found = order(&["vfio_pci", "vfio", "virtio_pci"]);
        assert_eq!(found, ["irqbypass", "vfio", "vfio_pci_core", "vfio_pci"]);
    }

    #[test]
    fn circles_end() {
        assert_eq!(order(&["a"]), ["b", "a"]);
    }

    #[test]
    fn unknown_names_are_told_from_built_in_ones() {
        let index = Index::parse(DEP, "kernel/d/virtio/virtio_pci.ko\n");
        assert!(index.visit("virtio_pci", &mut HashSet::new(), &mut Vec::new()));
        assert!(!index.visit("nonsense", &mut HashSet::new(), &mut Vec::new()));
    }

    #[test]
    fn an_empty_directory_is_no_kernel() {
        let root = tempfile::tempdir().unwrap();
        let error = Kernel::unpacked(root.path()).unwrap_err().to_string();
        assert!(error.contains("no kernel") && error.contains("setup"), "{error}");
    }
}
