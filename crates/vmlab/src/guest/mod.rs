//! Guests.

mod bare;
mod command_line;
mod config;
mod link;
mod logs;
mod process;
mod program;

use std::io::BufWriter;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::bare::{BareMetal, Ended};
pub use self::config::Config;
pub(crate) use self::config::{ALWAYS, VFIO};
use self::link::{InVain, Link, State};
use self::logs::Logs;
use self::process::Process;
pub use self::program::{Invocation, Output, Program, Running};
use crate::accel::Accel;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::qmp::{Qmp, QmpError};
use crate::toolchain::Artifact;
use crate::wire::{ProgramId, Request};

/// How long QEMU's monitor may take for an answer.
const MONITOR_LIMIT: Duration = Duration::from_secs(20);

/// The same where a guest does not boot.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often a guest that hangs is booted.
const ATTEMPTS: u32 = 2;

/// A running virtual machine. Its QEMU is killed when this is dropped, and when this process ends, however it
/// ends.
///
/// Its logs (console, QEMU's own words, all that was said to the monitor) are in a directory that vanishes
/// with it, unless the thread panics or `CROSSLOCK_LAB_KEEP` is set: then the directory stays, and its path
/// is printed.
#[derive(Debug)]
pub struct Guest {
    inner: Arc<Inner>,
    accel: Accel,
    boot_time: Duration,
}

/// What the guest shares with its programs.
#[derive(Debug)]
struct Inner {
    name: String,
    process: Process,
    link: Link,
    monitor: Mutex<Qmp>,
    logs: Arc<Logs>,
}

impl Guest {
    /// Boots a guest, and waits until programs can be started in it. One in a few hundred emulated machines hangs while its kernel
    /// boots; another one is booted then, once, and that is said.
    ///
    /// # Errors
    /// Something that [`setup`](crate::setup::run) provides is missing, QEMU refuses the configuration, or
    /// the guest is not up in time. Where QEMU was started, its logs are kept, and the error says where.
    pub fn boot(config: Config) -> Result<Self> {
        Self::boot_within(&config, ATTEMPTS, |error| matches!(error, Error::TimedOut { .. }))
    }

    /// The same in so many attempts, as long as they fail in a way that makes another one worth while.
    pub(crate) fn boot_within(
        config: &Config,
        attempts: u32,
        is_worth_another: impl Fn(&Error) -> bool,
    ) -> Result<Self> {
        let attempt = || {
            Self::attempt(config).map_err(|(error, logs)| match logs {
                Some(logs) => with_logs(error, &logs),
                None => error,
            })
        };
        for number in 1..attempts {
            match attempt() {
                Err(error) if is_worth_another(&error) => {
                    eprintln!("attempt {number} of {attempts} to boot guest {}: {error}", config.name);
                }
                done => return done,
            }
        }
        attempt()
    }

    /// Boots several guests at once.
    ///
    /// # Errors
    /// As [`boot`](Self::boot), for the first that fails.
    ///
    /// # Panics
    /// Never: there are as many guests as configurations.
    pub fn boot_all<const N: usize>(configs: [Config; N]) -> Result<[Self; N]> {
        let guests = std::thread::scope(|scope| {
            let boots = configs.map(|config| scope.spawn(|| Self::boot(config)));
            boots.map(|boot| boot.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let guests = guests.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(guests.try_into().expect("as many guests as configurations"))
    }

    /// Boots a guest only to see whether it does; nothing is kept.
    pub(crate) fn boot_and_forget(config: Config) -> Result<()> {
        Self::attempt(&config).map(drop).map_err(|(error, _)| error)
    }

    fn attempt(config: &Config) -> Result<Self, (Error, Option<Arc<Logs>>)> {
        let before = |error| (error, None);
        config.check().map_err(before)?;
        let arch = config.cpu.arch();
        let accel = config.accel.map_or_else(|| Accel::best(arch), Ok).map_err(before)?;
        let cache = Cache::new().map_err(before)?;
        let kernel = Kernel::cached(&cache, arch).map_err(before)?;
        let own = |name| Artifact::bin("vmlab", name).no_default_features().stripped().build(&cache, arch);
        let (init, drill) = (own("vmlab-init").map_err(before)?, own("vmlab-drill").map_err(before)?);
        let modules = kernel.modules(&config.all_modules()).map_err(before)?;
        let image = config.image(accel, &init, &drill, &modules).map_err(before)?;

        let logs = Arc::new(Logs::create(&config.name).map_err(before)?);
        let path = logs.path("image");
        let write = || image.write(&mut BufWriter::new(std::fs::File::create(&path)?));
        write().map_err(|error| before(Error::io("write", &path)(error)))?;
        Self::start(config, accel, &kernel, &logs).map_err(|error| (error, Some(logs)))
    }

    fn start(config: &Config, accel: Accel, kernel: &Kernel, logs: &Arc<Logs>) -> Result<Self> {
        let start = Instant::now();
        let qemu = config.cpu.arch().qemu();
        let not_run = |error| Error::NotRun { program: qemu.to_owned(), error };
        let (monitor, its_monitor) = UnixStream::pair().map_err(not_run)?;
        let (port, its_port) = UnixStream::pair().map_err(not_run)?;
        let arguments = command_line::arguments(
            config,
            &command_line::Parts {
                accel,
                kernel: kernel.image(),
                image: &logs.path("image"),
                console: &logs.console(),
                monitor: its_monitor.as_raw_fd(),
                port: its_port.as_raw_fd(),
            },
        );
        let mut command = Command::new(qemu);
        let said = logs.create_file("qemu.log")?;
        command.args(arguments).stdin(std::process::Stdio::null());
        command.stdout(said.try_clone().map_err(not_run)?).stderr(said);
        let inherited: Vec<OwnedFd> = vec![its_monitor.into(), its_port.into()];
        let process = Process::start(command, inherited).map_err(not_run)?;

        let monitor = Qmp::connect(monitor, logs.create_file("qmp.log")?, MONITOR_LIMIT);
        let monitor = monitor.map_err(|error| Error::Qmp {
            guest: config.name.clone(),
            command: "greeting".into(),
            error,
            evidence: Box::new(logs.evidence(Some(&process))),
        })?;
        let link = Link::start(port).map_err(not_run)?;
        let inner = Inner {
            name: config.name.clone(),
            process,
            link,
            monitor: Mutex::new(monitor),
            logs: Arc::clone(logs),
        };
        inner
            .wait(config.boot_limit, || "boot to its end".into(), |state| state.is_up.then_some(()))
            .inspect_err(|_| inner.log_registers())?;
        let guest = Self { inner: Arc::new(inner), accel, boot_time: start.elapsed() };
        tracing::info!("guest {} is up on {accel} after {:.1?}", config.name, guest.boot_time);
        Ok(guest)
    }

    /// What logs and errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What executes it.
    #[must_use]
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// How long it took from the start of QEMU until programs could be started in the guest.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// The process id of its QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.process.pid()
    }

    /// A program to be started here: its path, then its arguments.
    pub fn program(&self, argv: impl IntoIterator<Item = impl Into<String>>) -> Invocation<'_> {
        Invocation::new(&self.inner, argv)
    }

    /// Starts a program: its path, then its arguments.
    ///
    /// # Errors
    /// The guest cannot start it, is gone, or does not answer.
    pub fn exec(&self, argv: impl IntoIterator<Item = impl Into<String>>) -> Result<Program> {
        self.program(argv).start()
    }

    /// Runs a program to its end, for a minute at most.
    ///
    /// # Errors
    /// As [`exec`](Self::exec); the program does not end in time. How it ended is no error, but see
    /// [`Output::success`].
    pub fn run(&self, argv: impl IntoIterator<Item = impl Into<String>>) -> Result<Output> {
        self.program(argv).run()
    }

    /// The programs that were started here and run still.
    #[must_use]
    pub fn programs(&self) -> Vec<Running> {
        let state = self.inner.link.state();
        let running = state.programs.values().filter(|program| program.exit.is_none());
        running
            .filter_map(|program| Some(Running { pid: program.pid?, argv: program.argv.clone() }))
            .collect()
    }

    /// Makes a file in the guest, or replaces one. `mode` is its permissions.
    ///
    /// # Errors
    /// As [`run`](Self::run); the guest cannot write it.
    pub fn put(&self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.program(["/init", "put", path, &format!("{mode:o}")]).stdin(bytes).run()?.success().map(drop)
    }

    /// What is in a file of the guest.
    ///
    /// # Errors
    /// As [`run`](Self::run); the guest cannot read it.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        Ok(self.run(["/init", "get", path])?.success()?.stdout)
    }

    /// Stops its virtual CPUs where they are.
    ///
    /// # Errors
    /// The monitor does not do it.
    pub fn pause(&self) -> Result<()> {
        self.qmp("stop", json!({})).map(drop)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The monitor does not do it.
    pub fn resume(&self) -> Result<()> {
        self.qmp("cont", json!({})).map(drop)
    }

    /// QEMU's word for its state: `"running"`, `"paused"`.
    ///
    /// # Errors
    /// The monitor does not say.
    pub fn status(&self) -> Result<String> {
        let status = self.qmp("query-status", json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Has the monitor carry out a command, and gives what it returns.
    ///
    /// # Errors
    /// The monitor refuses it, does not answer in time, or the guest is gone.
    pub fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut monitor = self.inner.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor
            .execute(command, arguments, MONITOR_LIMIT)
            .map_err(|error| self.inner.monitor_error(command, error))
    }

    /// The events that QEMU has told of while commands were carried out. Each is given once.
    #[must_use]
    pub fn take_events(&self) -> Vec<Value> {
        self.inner.monitor.lock().unwrap_or_else(PoisonError::into_inner).take_events()
    }

    /// Ends QEMU in an orderly way, and waits for its end.
    ///
    /// # Errors
    /// The monitor does not do it, or QEMU does not end within `limit`.
    pub fn quit(&self, limit: Duration) -> Result<ExitStatus> {
        match self.qmp("quit", json!({})) {
            Ok(_) | Err(Error::Qmp { error: QmpError::Closed, .. }) => self.wait_end(limit),
            Err(error) => Err(error),
        }
    }

    /// Kills QEMU with SIGKILL: to the others, the guest is gone from one instruction to the next. Does not
    /// wait.
    pub fn kill(&self) {
        self.inner.process.kill();
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub fn wait_end(&self, limit: Duration) -> Result<ExitStatus> {
        let end = self.inner.process.wait(limit);
        end.ok_or_else(|| self.inner.in_vain(InVain::TimedOut, limit, "end of QEMU".into()))
    }

    /// Leaves its logs in place whatever happens, and says where they are.
    #[must_use]
    pub fn keep_logs(&self) -> &std::path::Path {
        self.inner.logs.keep()
    }
}

impl Inner {
    fn wait<T>(
        &self,
        limit: Duration,
        waited_for: impl Fn() -> String,
        look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        self.link.wait(limit, look).map_err(|in_vain| self.in_vain(in_vain, limit, waited_for()))
    }

    fn send(&self, id: ProgramId, request: &Request, waited_for: impl Fn() -> String) -> Result<()> {
        self.link.send(id, request).map_err(|error| {
            let waited_for = format!("{} ({error})", waited_for());
            self.in_vain(InVain::Gone, Duration::ZERO, waited_for)
        })
    }

    fn in_vain(&self, in_vain: InVain, limit: Duration, mut waited_for: String) -> Error {
        let (guest, evidence) = (self.name.clone(), Box::new(self.logs.evidence(Some(&self.process))));
        match in_vain {
            InVain::TimedOut => Error::TimedOut { guest, waited_for, limit, evidence },
            InVain::Gone => {
                if let Some(why) = self.link.gone() {
                    waited_for += &format!(" ({why})");
                }
                Error::Gone { guest, waited_for, evidence }
            }
        }
    }

    /// What its virtual CPUs do goes to the log of the monitor, for whoever asks why it did not boot. No answer is one, too.
    fn log_registers(&self) {
        if let Ok(mut monitor) = self.monitor.try_lock() {
            let command = json!({ "command-line": "info registers -a" });
            let _ = monitor.execute("human-monitor-command", command, LAST_WORDS);
        }
    }

    fn monitor_error(&self, command: &str, error: QmpError) -> Error {
        let evidence = Box::new(self.logs.evidence(Some(&self.process)));
        Error::Qmp { guest: self.name.clone(), command: command.to_owned(), error, evidence }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.inner.process.kill();
        self.inner.process.wait(Duration::from_secs(10));
        if std::thread::panicking() || std::env::var_os("CROSSLOCK_LAB_KEEP").is_some() {
            eprintln!("the logs of guest {} are in {}", self.inner.name, self.inner.logs.keep().display());
        }
    }
}

/// Keeps the logs, and has the error say where they are.
fn with_logs(mut error: Error, logs: &Logs) -> Error {
    let path = logs.keep();
    if let Error::Gone { evidence, .. } | Error::TimedOut { evidence, .. } | Error::Qmp { evidence, .. } =
        &mut error
    {
        evidence.logs = Some(path.to_owned());
    }
    error
}
