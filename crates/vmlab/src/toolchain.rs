//! Programs for guests: static, and built from this workspace in a target directory of their own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::arch::Arch;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::external;

/// The variable that names a directory of programs built before. Where it is set, they come from there, and nothing is built.
pub const PREBUILT: &str = "CROSSLOCK_LAB_PREBUILT";

/// A program of this workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Artifact {
    package: String,
    kind: Kind,
    name: String,
    default_features: bool,
    features: Vec<String>,
    instructions: Vec<String>,
    stripped: bool,
    bare_metal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Bin,
    Example,
    Test,
}

impl Artifact {
    fn new(package: impl Into<String>, kind: Kind, name: impl Into<String>) -> Self {
        let (package, name) = (package.into(), name.into());
        Self {
            package,
            kind,
            name,
            default_features: true,
            features: Vec::new(),
            instructions: Vec::new(),
            stripped: false,
            bare_metal: false,
        }
    }

    /// A binary of a package.
    #[must_use]
    pub fn bin(package: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(package, Kind::Bin, name)
    }

    /// An example of a package.
    #[must_use]
    pub fn example(package: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(package, Kind::Example, name)
    }

    /// An integration test of a package: the program that runs it.
    #[must_use]
    pub fn test(package: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(package, Kind::Test, name)
    }

    /// With this feature of the package.
    #[must_use]
    pub fn feature(mut self, feature: impl Into<String>) -> Self {
        self.features.push(feature.into());
        self
    }

    /// With instructions that not every processor has, by the compiler's name for them: `"lse"`.
    #[must_use]
    pub fn instructions(mut self, name: impl Into<String>) -> Self {
        self.instructions.push(name.into());
        self
    }

    /// Without the features that the package has by default.
    #[must_use]
    pub fn no_default_features(mut self) -> Self {
        self.default_features = false;
        self
    }

    /// Without what debuggers and backtraces want, and so a quarter as large.
    #[must_use]
    pub fn stripped(mut self) -> Self {
        self.stripped = true;
        self
    }

    /// A kernel: nothing below it, nothing linked to it, loaded where it is linked to.
    #[must_use]
    pub fn bare_metal(mut self) -> Self {
        self.bare_metal = true;
        self
    }

    /// Builds it for `arch`, optimised, and gives its file. Asked again, this process does not look again.
    ///
    /// # Errors
    /// It does not compile, or the compiler for `arch` is missing.
    pub fn build(&self, cache: &Cache, arch: Arch) -> Result<PathBuf> {
        static BUILT: Mutex<Option<HashMap<(Arch, Artifact), PathBuf>>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        let built = built.get_or_insert_default();
        let key = (arch, self.clone());
        if let Some(path) = built.get(&key) {
            return Ok(path.clone());
        }
        let path = self.build_anew(cache, arch)?;
        built.insert(key, path.clone());
        Ok(path)
    }

    /// Where it is in a [directory of prebuilt programs](PREBUILT): `x86_64/crosslock-lab/lab-guest`. Each feature, and each
    /// [instruction](Self::instructions), adds `+NAME`, and `-default` stands for those that the package has by default.
    #[must_use]
    pub fn place(&self, arch: Arch) -> PathBuf {
        let mut file = self.name.clone();
        if !self.default_features {
            file += "-default";
        }
        for feature in self.features.iter().chain(&self.instructions) {
            file += &format!("+{feature}");
        }
        [arch.name(), &self.package, &file].iter().collect()
    }

    fn build_anew(&self, cache: &Cache, arch: Arch) -> Result<PathBuf> {
        if let Some(directory) = std::env::var_os(PREBUILT) {
            let path = PathBuf::from(directory).join(self.place(arch));
            return if path.is_file() { Ok(path) } else { Err(Error::NotPrebuilt { path }) };
        }
        let mut command = self.cargo(cache, arch)?;
        match self.kind {
            Kind::Bin => command.args(["build", "--bin", &self.name]),
            Kind::Example => command.args(["build", "--example", &self.name]),
            Kind::Test => command.args(["test", "--no-run", "--test", &self.name]),
        };
        command.args([
            "--release",
            "--package",
            &self.package,
            "--message-format",
            "json-render-diagnostics",
        ]);
        if self.stripped {
            command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        }
        if !self.default_features {
            command.arg("--no-default-features");
        }
        if !self.features.is_empty() {
            command.args(["--features", &self.features.join(",")]);
        }
        tracing::info!("building {} of {} for {arch}", self.name, self.package);
        let messages = external::text(&mut command)?;
        executable(&messages, &self.name).ok_or_else(|| Error::NotFound {
            what: format!("executable {}", self.name),
            source_name: "cargo".into(),
            text: external::tail(messages.as_bytes()),
        })
    }

    /// What is built with other flags is another file, because both may be wanted at once; so are kernels with other features.
    fn cargo(&self, cache: &Cache, arch: Arch) -> Result<Command> {
        let (mut directory, mut flags) = (arch.name().to_owned(), STATIC.to_owned());
        if self.bare_metal {
            directory += "-kernel";
            self.features.iter().for_each(|feature| directory += &format!("-{feature}"));
            flags = KERNEL.to_owned();
            if arch == Arch::Aarch64 {
                flags += INLINE_ATOMICS;
            }
        }
        for name in &self.instructions {
            directory += &format!("-{name}");
            flags += &format!(" -C target-feature=+{name}");
        }
        cargo_with(cache, arch, &directory, &flags)
    }
}

/// The file of the program `name`, by cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let of = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    };
    messages.lines().filter_map(of).next_back()
}

/// With the C library inside: guests have none.
const STATIC: &str = "-C target-feature=+crt-static";

/// At fixed addresses; interrupts leave no room below the stack pointer; a panic is the end.
const KERNEL: &str = "-C relocation-model=static -C no-redzone=y -C panic=abort -C force-frame-pointers=yes";

/// On aarch64 atomics are to be instructions: by default they are calls, which ask at run time whether the processor has LSE.
const INLINE_ATOMICS: &str = " -C target-feature=-outline-atomics";

/// A cargo that builds static programs for `arch` from this workspace, and runs them and their tests here, if
/// need be by emulation. Subcommand and arguments are yours to add.
///
/// # Errors
/// The compiler for `arch` is missing, or there is no workspace.
pub fn cargo(cache: &Cache, arch: Arch) -> Result<Command> {
    cargo_with(cache, arch, arch.name(), STATIC)
}

/// With flags for the compiler, and so in a target directory of their own. What programs are made of is in the workspace's, where cargo
/// tells apart what was built by other compilers or with other flags; so what is the same for all, macros above all, is built once.
fn cargo_with(cache: &Cache, arch: Arch, directory: &str, flags: &str) -> Result<Command> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = bare_cargo(workspace);
    let target = target_directory(workspace)?;
    let setting =
        |what: &str| format!("CARGO_TARGET_{}_{what}", arch.target().to_uppercase().replace('-', "_"));
    command
        .env("CARGO_BUILD_TARGET", arch.target())
        .env("CARGO_TARGET_DIR", target.join("vmlab").join(directory))
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env(setting("RUSTFLAGS"), flags)
        .env(setting("RUSTDOCFLAGS"), flags);
    if Arch::HOST != Some(arch) {
        command
            .env(setting("LINKER"), format!("{}-linux-gnu-gcc", arch.name()))
            .env(setting("RUNNER"), format!("qemu-{}-static", arch.name()));
    }
    if !is_installed(arch) {
        let root = cached(cache, arch)?;
        let libraries = ["usr/lib", "lib"]
            .map(|path| root.join(path).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
        // Only a colon in the cache's path could prevent this.
        let libraries = std::env::join_paths(libraries).unwrap_or_default();
        command
            .env("RUSTC", root.join("usr/bin/rustc"))
            .env("RUSTDOC", root.join("usr/bin/rustdoc"))
            .env("LD_LIBRARY_PATH", libraries);
    }
    Ok(command)
}

/// Whether the installed compiler has the standard library of `arch`.
pub(crate) fn is_installed(arch: Arch) -> bool {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir", "--target", arch.target()]);
    external::text(&mut command).is_ok_and(|path| Path::new(path.trim()).is_dir())
}

/// The root of the compiler for `arch` in the cache.
pub(crate) fn cached(cache: &Cache, arch: Arch) -> Result<PathBuf> {
    let root = cache.rust(arch);
    let libraries = root.join("usr/lib/rustlib").join(arch.target());
    if root.join("usr/bin/rustc").exists() && libraries.is_dir() {
        Ok(root)
    } else {
        Err(Error::Missing { what: "compiler for this architecture", path: root })
    }
}

/// The version of the compiler that builds for `arch`.
pub(crate) fn describe(cache: &Cache, arch: Arch) -> Result<String> {
    let cargo = cargo(cache, arch)?;
    let setting = |name| cargo.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
    let mut rustc = Command::new(setting("RUSTC").unwrap_or("rustc".as_ref()));
    if let Some(libraries) = setting("LD_LIBRARY_PATH") {
        rustc.env("LD_LIBRARY_PATH", libraries);
    }
    Ok(external::text(rustc.arg("--version"))?.trim().to_owned())
}

/// cargo as it would be called by hand, whatever runs this program.
fn bare_cargo(workspace: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(workspace);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}

fn target_directory(workspace: &Path) -> Result<PathBuf> {
    let mut command = bare_cargo(workspace);
    let text = external::text(command.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).unwrap_or_default();
    metadata["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| Error::NotFound {
        what: "target directory".into(),
        source_name: "cargo metadata".into(),
        text: external::tail(text.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prebuilt_programs_with_other_features_are_other_files() {
        let program = Artifact::bin("crosslock-lab", "lab-guest");
        assert_eq!(program.place(Arch::X86_64), Path::new("x86_64/crosslock-lab/lab-guest"));
        let other = program.no_default_features().feature("one").feature("two");
        assert_eq!(other.place(Arch::Aarch64), Path::new("aarch64/crosslock-lab/lab-guest-default+one+two"));
    }

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"drill"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"drill"},"executable":"/t/drill"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "drill"), Some("/t/drill".into()));
        assert_eq!(executable(messages, "absent"), None);
    }
}
