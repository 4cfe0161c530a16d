//! The scenarios inside of an emulated machine, with guests that KVM runs.
//!
//! The very program that this is, built static, runs there; [`vmlab::nested`] has a picture. It says its rows as JSON, and this
//! takes them over.

use std::time::Duration;

use anyhow::{Context as _, bail};
use vmlab::Exit;
use vmlab::nested::Lab;
use vmlab::toolchain::Artifact;

use crate::outcome::Outcome;
use crate::scenarios::{Extent, Scenario};
use crate::stage;

/// Two guests of it, and all files, lie in there.
const MEMORY_MIB: u32 = 4096;

/// How long a scenario may take: several times what the slowest did.
const LIMIT: Duration = Duration::from_secs(1800);

/// What tells [the program](crate) that it is inside. Not for people.
pub const INSIDE: &str = "--inside";

/// A machine with KVM, booted when it is first needed.
#[derive(Debug, Default)]
pub struct Nested(Option<Lab>);

impl Nested {
    /// Runs a scenario there.
    ///
    /// # Errors
    /// The machine does not boot, or the scenario could not be done.
    pub fn run(&mut self, scenario: &Scenario, extent: Extent) -> anyhow::Result<Vec<Outcome>> {
        let lab = match &mut self.0 {
            Some(lab) => lab,
            none => none.insert(boot()?),
        };
        let done = run(lab, scenario, extent);
        if done.is_err() {
            // Whatever it was, the next one has a machine of its own.
            self.0 = None;
        }
        done
    }
}

fn program() -> Artifact {
    Artifact::bin("crosslock-lab", "lab").stripped()
}

fn boot() -> anyhow::Result<Lab> {
    let programs = [&[program()][..], &stage::programs()].concat();
    Ok(Lab::boot(MEMORY_MIB, &programs)?)
}

fn run(lab: &Lab, scenario: &Scenario, extent: Extent) -> anyhow::Result<Vec<Outcome>> {
    let quick: &[&str] = if extent == Extent::Quick { &["--quick"] } else { &[] };
    let arguments = [&["--json", INSIDE, scenario.name], quick].concat();
    let invocation = lab.program(&program(), arguments.into_iter().map(Into::into));
    let output = invocation.limit(LIMIT).run()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.exit {
        // Done: all good, or not.
        Exit::Code(0 | 1) => {}
        exit => bail!("the lab inside ended with {exit}: {}", complaint.trim()),
    }
    let row = |line: &str| -> anyhow::Result<Outcome> {
        let outcome: Outcome =
            serde_json::from_str(line).with_context(|| format!("the lab inside said {line}"))?;
        Ok(Outcome { machines: format!("KVM, nested: {}", outcome.machines), ..outcome })
    };
    let rows = output.text().lines().map(row).collect::<anyhow::Result<Vec<_>>>()?;
    if rows.is_empty() {
        bail!("the lab inside said nothing: {}", complaint.trim());
    }
    Ok(rows)
}
