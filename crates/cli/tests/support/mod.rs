//! What the tests of the command share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;

/// The command, to be ended if it takes too long.
pub(crate) fn crosslock(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosslock"));
    command.args(args).timeout(std::time::Duration::from_secs(120));
    command
}

/// The JSON that a successful command prints.
pub(crate) fn json(args: &[&str]) -> Value {
    let output = crosslock(args).arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

/// A name in /dev/shm that no other test has; what is there is removed at the end.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new(test: &str) -> Self {
        Self(format!("crosslock-test-{}-{test}", std::process::id()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Usually gone already.
        let _ = std::fs::remove_file(self.path());
        let _ = std::fs::remove_dir(self.path());
    }
}
