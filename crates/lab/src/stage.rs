//! Where scenarios take place: a segment, guests that see it, and this host.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use crosslock::{Options, Segment};
use tempfile::TempDir;
use vmlab::toolchain::Artifact;
use vmlab::{Arch, Cache, Config, Cpu, Guest, Program};

use crate::actor::Actor;
use crate::said::Said;
use crate::server::Server;

/// Where the programs are in guests.
const LAB_GUEST: &str = "/bin/lab-guest";
const CROSSLOCK: &str = "/bin/crosslock";
pub(crate) const DRILL: &str = "/bin/ivshmem-drill";

/// How large the shared memory is, in bytes.
const SIZE: u64 = 1 << 22;

/// How many kernels can take part, and how many threads of each.
const DOMAINS: u32 = 4;
const THREADS: u32 = 16;

/// Doorbells of each peer.
pub(crate) const VECTORS: u32 = 8;

/// How long an agent may take to start.
const SOON: Duration = Duration::from_secs(60);

/// A segment, that guests see as the memory of a device.
#[derive(Debug)]
pub struct Stage {
    /// Before the directory: it has its socket there.
    server: Option<Server>,
    directory: TempDir,
    segment: Segment,
}

/// A guest that takes part.
#[derive(Debug)]
pub struct Machine {
    guest: Guest,
    domain: u32,
    agent: Option<Program>,
}

/// Where a process runs.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// On this host.
    Host,
    /// In that guest.
    Guest(&'a Machine),
}

impl Stage {
    /// A segment that guests share without interrupts: nobody serves it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn plain() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let options =
            Options::new().directory(directory.path()).domains(DOMAINS).participants(DOMAINS * THREADS);
        let segment = options.size(SIZE).create("segment")?;
        Ok(Self { server: None, directory, segment })
    }

    /// A segment with a server, whose guests have doorbells and agents.
    ///
    /// # Errors
    /// The command cannot be built, or the server does not start.
    pub fn served() -> anyhow::Result<Self> {
        Self::served_for(DOMAINS)
    }

    /// The same for more kernels.
    ///
    /// # Errors
    /// As [`Stage::served`].
    pub fn served_for(domains: u32) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (server, segment) = Server::start(command_of(host())?, directory.path(), SIZE, domains, THREADS)?;
        Ok(Self { server: Some(server), directory, segment })
    }

    /// The segment, as this process sees it.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Who serves it.
    ///
    /// # Errors
    /// Nobody does.
    pub fn server(&mut self) -> anyhow::Result<&mut Server> {
        self.server.as_mut().ok_or_else(|| anyhow::anyhow!("nobody serves this segment"))
    }

    fn file(&self) -> PathBuf {
        self.server.as_ref().map_or_else(|| self.directory.path().join("segment"), Server::file)
    }

    /// What a guest is like that shares the segment.
    fn config(&self, cpu: Cpu, number: u32) -> anyhow::Result<Config> {
        let config =
            Config::new(cpu).name(format!("guest-{number}")).program(LAB_GUEST, program_of(cpu.arch())?);
        // An emulated machine's kernel trusts no clock but the HPET, which takes an exit to read; under KVM it would not.
        let config = if cpu.arch() == Arch::X86_64 { config.kernel_argument("tsc=reliable") } else { config };
        Ok(match &self.server {
            None => config.ivshmem_plain(self.file(), SIZE),
            Some(server) => {
                let config = config.vfio().ivshmem_doorbell(server.socket(), VECTORS);
                config.program(DRILL, drill().build(&Cache::new()?, cpu.arch())?)
            }
        })
    }

    /// Boots guests that share the segment, all at once; starts their agents, if somebody serves it.
    ///
    /// # Errors
    /// A program for them cannot be built; they do not boot, or their agents do not start.
    pub fn boot(&self, cpus: &[Cpu]) -> anyhow::Result<Vec<Machine>> {
        if self.server.is_some() {
            self.boot_with_agents(cpus, |config| config)
        } else {
            self.boot_bare(cpus)
        }
    }

    /// The same with changes to what they are like, and with agents even where nobody serves the segment.
    ///
    /// # Errors
    /// As [`Stage::boot`].
    pub fn boot_with_agents(
        &self,
        cpus: &[Cpu],
        change: impl Fn(Config) -> Config,
    ) -> anyhow::Result<Vec<Machine>> {
        let config =
            |cpu: Cpu, config: Config| anyhow::Ok(change(config).program(CROSSLOCK, command_of(cpu.arch())?));
        let mut machines = self.boot_as(cpus, config)?;
        machines.iter_mut().try_for_each(Machine::start_agent)?;
        Ok(machines)
    }

    /// The same without agents; they can be [started](Machine::start_agent) where somebody serves the segment.
    ///
    /// # Errors
    /// As [`Stage::boot`].
    pub fn boot_bare(&self, cpus: &[Cpu]) -> anyhow::Result<Vec<Machine>> {
        let is_served = self.server.is_some();
        self.boot_as(cpus, |cpu, config| {
            Ok(if is_served { config.program(CROSSLOCK, command_of(cpu.arch())?) } else { config })
        })
    }

    fn boot_as(
        &self,
        cpus: &[Cpu],
        complete: impl Fn(Cpu, Config) -> anyhow::Result<Config>,
    ) -> anyhow::Result<Vec<Machine>> {
        let config = |(number, &cpu)| complete(cpu, self.config(cpu, number)?);
        let configs = (1..).zip(cpus).map(config).collect::<anyhow::Result<Vec<_>>>()?;
        let guests = thread::scope(|scope| {
            let boots: Vec<_> =
                configs.into_iter().map(|config| scope.spawn(|| Guest::boot(config))).collect();
            let join = |boot: thread::ScopedJoinHandle<'_, _>| {
                boot.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            boots.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        let machines = (1..).zip(guests).map(|(domain, guest)| Machine { guest, domain, agent: None });
        Ok(machines.collect())
    }

    /// Ivshmem peers of the guests that are there.
    pub(crate) fn peers(&self) -> Vec<u32> {
        let domains = self.segment.domains();
        domains.iter().skip(1).filter(|domain| domain.is_alive).map(|domain| domain.peer).collect()
    }

    /// Starts the lab's program there, which is to do that.
    ///
    /// # Errors
    /// It cannot be built or started.
    pub fn start(&self, place: Place<'_>, deed: &[&str]) -> anyhow::Result<Actor> {
        match place {
            Place::Host => {
                let mut command = Command::new(program_of(host())?);
                command.arg("--file").arg(self.file()).args(deed);
                Actor::on_host(format!("{} on the host", deed.join(" ")), command)
            }
            Place::Guest(machine) => {
                let domain = machine.domain.to_string();
                let has_agent = self.server.is_some() || machine.agent.is_some();
                let join: &[&str] = if has_agent { &["--agent"] } else { &["--plain", &domain] };
                let argv = [&[LAB_GUEST], join, deed].concat();
                let label = format!("{} in {}", deed.join(" "), machine.guest.name());
                Ok(Actor::in_guest(label, machine.guest.exec(argv)?))
            }
        }
    }

    /// Starts several, each of which counts or plays, and has all begin when all are ready.
    ///
    /// # Errors
    /// As [`Stage::start`]; one does not get ready.
    pub fn start_together<'a>(
        &self,
        parts: impl IntoIterator<Item = (Place<'a>, Vec<&'a str>)>,
    ) -> anyhow::Result<Vec<Actor>> {
        let start = |(place, deed): (Place<'_>, Vec<&str>)| {
            let mut actor = self.start(place, &deed)?;
            actor.expect(&Said::Ready)?;
            Ok(actor)
        };
        let mut actors = parts.into_iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        actors.iter_mut().try_for_each(Actor::go)?;
        Ok(actors)
    }

    /// Starts somebody who has that robust lock.
    ///
    /// # Errors
    /// As [`Stage::start`]; it does not get the lock.
    pub fn holder(&self, place: Place<'_>, name: &str) -> anyhow::Result<Actor> {
        let mut actor = self.start(place, &["hold", name])?;
        actor.expect(&Said::Holds)?;
        Ok(actor)
    }

    /// Starts somebody who sleeps in the queue of that robust lock.
    ///
    /// # Errors
    /// As [`Stage::start`]; it gets the lock.
    pub fn sleeper(&self, place: Place<'_>, name: &str) -> anyhow::Result<Actor> {
        let mut actor = self.start(place, &["wait", name])?;
        actor.expect(&Said::Ready)?;
        actor.go()?;
        actor.expect(&Said::Waits)?;
        ensure!(actor.is_silent(Duration::from_millis(100))?, "somebody has got a lock that is held");
        Ok(actor)
    }
}

impl Machine {
    /// The virtual machine.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Which domain it is.
    #[must_use]
    pub fn domain(&self) -> u32 {
        self.domain
    }

    /// Starts its agent, and waits until that stands.
    ///
    /// # Errors
    /// It does not start, or says something else.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        // The number counts where there is no server.
        let mut agent = self.guest.exec([CROSSLOCK, "agent", "--domain", &self.domain.to_string()])?;
        match agent.line_with("is served", SOON) {
            Ok(line) => {
                let number = line.split(' ').nth(1).and_then(|word| word.parse().ok());
                self.domain = number.with_context(|| format!("the agent said {line}"))?;
                self.agent = Some(agent);
                Ok(())
            }
            Err(error) => {
                let output = agent.output(Duration::from_secs(1))?;
                bail!("{error}; {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }

    /// SIGKILL to its agent; waits for its end.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub fn kill_agent(&mut self) -> anyhow::Result<()> {
        let Some(agent) = self.agent.take() else { bail!("{} has no agent", self.guest.name()) };
        agent.kill()?;
        agent.wait(SOON)?;
        Ok(())
    }

    /// Kills its QEMU; gives when.
    pub fn kill(&self) -> Instant {
        let now = Instant::now();
        self.guest.kill();
        now
    }

    /// CPU time that its virtual CPUs have used so far.
    ///
    /// # Errors
    /// QEMU does not say which threads they are, or has ended.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let cpus = self.guest.qmp("query-cpus-fast", serde_json::json!({}))?;
        let threads: Vec<_> =
            cpus.as_array().into_iter().flatten().filter_map(|cpu| cpu["thread-id"].as_u64()).collect();
        ensure!(!threads.is_empty(), "QEMU has no virtual CPUs");
        let ticks = threads.iter().map(|thread| self.ticks(*thread)).sum::<anyhow::Result<u64>>()?;
        Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    fn ticks(&self, thread: u64) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/task/{thread}/stat", self.guest.pid()))?;
        // The name, in parentheses, may contain anything; after it come the state, and the 12th and 13th are user and system time.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        ensure!(fields.len() > 12, "the kernel says of a virtual CPU: {stat}");
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }
}

fn host() -> Arch {
    Arch::HOST.unwrap_or(Arch::X86_64)
}

fn program_of(arch: Arch) -> anyhow::Result<PathBuf> {
    Ok(guest().build(&Cache::new()?, arch)?)
}

fn command_of(arch: Arch) -> anyhow::Result<PathBuf> {
    Ok(command().build(&Cache::new()?, arch)?)
}

/// What runs on a stage, in guests and on the host.
pub(crate) fn programs() -> [Artifact; 3] {
    [guest(), command(), drill()]
}

fn guest() -> Artifact {
    Artifact::bin("crosslock-lab", "lab-guest").no_default_features().stripped()
}

fn command() -> Artifact {
    Artifact::bin("crosslock-cli", "crosslock").stripped()
}

fn drill() -> Artifact {
    Artifact::bin("crosslock-lab", "ivshmem-drill").no_default_features().stripped()
}
