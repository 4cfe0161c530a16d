//! Many peers that come and go, while two guests go on.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vmlab::Arch;
use vmlab::Cpu::X86_64;

use crate::actor::Actor;
use crate::outcome::Outcome;
use crate::said::Counted;
use crate::scenarios::{Extent, Setting};
use crate::stage::{Place, Stage, VECTORS};

/// How many peers beside the two guests there are at a time.
const PEERS: usize = 16;

const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(scenario: &'static str, setting: Setting) -> anyhow::Result<Vec<Outcome>> {
    let time = Duration::from_secs(if setting.extent == Extent::Quick { 10 } else { 60 });
    let mut stage = Stage::served_for(32)?;
    let machines = stage.boot(&[X86_64, X86_64])?;
    let socket = stage.server()?.socket().to_owned();
    let millis = time.as_millis().to_string();
    let count = ["count", "robust", "--millis", &millis];
    let parts = machines.iter().map(|machine| (Place::Guest(machine), count.to_vec()));
    let mut actors = stage.start_together(parts)?;

    let (start, mut came, mut went) = (Instant::now(), 0_u64, 0_u64);
    let mut crowd: Vec<Machine> = Vec::new();
    while start.elapsed() < time {
        if crowd.len() < PEERS {
            crowd.push(Machine::attach(&socket)?);
            came += 1;
            continue;
        }
        // The oldest goes: killed, or in an orderly way.
        crowd.remove(0).leave(went % 2 == 0)?;
        went += 1;
    }
    let aborted = crowd.iter_mut().map(Machine::has_ended).collect::<anyhow::Result<Vec<_>>>()?;
    let aborted = aborted.into_iter().filter(|ended| *ended).count() as u64;
    drop(crowd);

    let Counted { turns, violations, .. } = Actor::counted_together(&mut actors, LIMIT)?;
    for machine in &machines {
        ensure!(machine.guest().status()? == "running", "{} does not run any more", machine.guest().name());
    }
    let is_alive = stage.server()?.is_alive()?;
    let note =
        format!("{came} peers came, {PEERS} at a time; {aborted} aborted; two guests counted to {turns}");
    let outcome = Outcome::new(scenario, "18 peers", "robust").counts(came + went, violations + aborted);
    Ok(vec![outcome.check(is_alive && went > 0).note(note)])
}

/// A QEMU that is attached and whose processors never run: to the server and to all others it is a peer like any other.
struct Machine(Child);

impl Machine {
    fn attach(socket: &Path) -> anyhow::Result<Self> {
        let qemu = std::env::var_os("CROSSLOCK_QEMU").unwrap_or_else(|| Arch::X86_64.qemu().into());
        let chardev = format!("socket,path={},id=ivs", socket.display());
        let device = format!("ivshmem-doorbell,vectors={VECTORS},chardev=ivs");
        let child = Command::new(qemu)
            .args([
                "-S",
                "-accel",
                "tcg",
                "-m",
                "16",
                "-display",
                "none",
                "-nodefaults",
                "-chardev",
                &chardev,
                "-device",
                &device,
            ])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start QEMU; `lab setup` installs it")?;
        Ok(Self(child))
    }

    fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    fn leave(&mut self, orderly: bool) -> anyhow::Result<()> {
        ensure!(!self.has_ended()?, "a QEMU has ended by itself");
        if orderly {
            let pid = i32::try_from(self.0.id())?;
            let pid = rustix::process::Pid::from_raw(pid).context("a process without a number")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        } else {
            self.0.kill()?;
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
