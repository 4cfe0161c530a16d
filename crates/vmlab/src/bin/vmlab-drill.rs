//! What tests of the lab run in guests, and on the host beside them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crosslock_core::primitive::{AtomicU32, AtomicU64, Ordering};
use rustix::mm::{MapFlags, ProtFlags};

const USAGE: &str = "usage: vmlab-drill COMMAND
  echo WORD...             prints the words
  env NAME                 prints a variable
  cat                      copies its input to its output
  complain WORD...         prints the words to its error output
  flood BYTES              prints so many bytes, of all values
  tick MILLISECONDS        prints a number every so often, for ever
  sleep SECONDS            waits
  exit STATUS
  abort                    dies by a signal
  list DIRECTORY           prints the names in there
  link PATH                prints where a symbolic link points
  machine                  prints the instruction set
  crash                    panics the kernel
  count MEMORY PEERS ROUNDS [torn]
      waits until all peers have come, then adds 1 to a shared word ROUNDS times; `torn` adds in two steps, and so
      loses additions. MEMORY is a file, or ivshmem-wc or ivshmem: BAR2 with and without write combining";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("vmlab-drill: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    match arguments {
        ["echo", words @ ..] => println!("{}", words.join(" ")),
        ["env", name] => println!("{}", std::env::var(name)?),
        ["cat"] => {
            io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?;
        }
        ["complain", words @ ..] => eprintln!("{}", words.join(" ")),
        ["flood", bytes] => flood(bytes.parse()?)?,
        ["tick", milliseconds] => tick(Duration::from_millis(milliseconds.parse()?))?,
        // Also as what interprets a script: then the script's path comes first.
        ["sleep", .., seconds] => std::thread::sleep(Duration::from_secs(seconds.parse()?)),
        ["exit", status] => return Ok(ExitCode::from(status.parse::<u8>()?)),
        ["abort"] => std::process::abort(),
        ["list", directory] => list(directory)?,
        ["link", path] => println!("{}", fs::read_link(path)?.display()),
        ["machine"] => println!("{}", std::env::consts::ARCH),
        ["crash"] => fs::write("/proc/sysrq-trigger", "c")?,
        ["count", memory, peers, rounds] => count(memory, peers.parse()?, rounds.parse()?, true)?,
        ["count", memory, peers, rounds, "torn"] => count(memory, peers.parse()?, rounds.parse()?, false)?,
        _ => return Err(USAGE.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn flood(mut bytes: usize) -> io::Result<()> {
    let chunk: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let mut out = io::stdout().lock();
    while bytes > 0 {
        let count = bytes.min(chunk.len());
        out.write_all(&chunk[..count])?;
        bytes -= count;
    }
    out.flush()
}

fn tick(period: Duration) -> io::Result<()> {
    for number in 0u64.. {
        writeln!(io::stdout(), "{number}")?;
        std::thread::sleep(period);
    }
    Ok(())
}

fn list(directory: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        println!("{}", entry?.file_name().display());
    }
    Ok(())
}

/// How long to wait for peers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where in the memory the counter is, and, on a cache line of its own, how many peers have come.
const COUNTER: usize = 0;
const ARRIVED: usize = 64;

fn count(memory: &str, peers: u32, rounds: u64, exact: bool) -> Result<(), Box<dyn Error>> {
    let path = match memory {
        "ivshmem" => ivshmem("resource2")?,
        "ivshmem-wc" => ivshmem("resource2_wc")?,
        file => file.into(),
    };
    let base = map(&path)?;
    // SAFETY: the mapping is never removed, at least a page long and page-aligned, so an aligned u64 lies here.
    let counter: &AtomicU64 = unsafe { &*base.wrapping_add(COUNTER).cast::<AtomicU64>() };
    // SAFETY: as above, with a u32.
    let arrived: &AtomicU32 = unsafe { &*base.wrapping_add(ARRIVED).cast::<AtomicU32>() };

    let start = Instant::now();
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < peers {
        if start.elapsed() > PATIENCE {
            return Err(format!("fewer than {peers} peers within {PATIENCE:?}").into());
        }
        std::thread::yield_now();
    }
    for _ in 0..rounds {
        if exact {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
    println!("{rounds}");
    Ok(())
}

/// Maps a whole file, for good.
fn map(path: &Path) -> Result<*mut u8, Box<dyn Error>> {
    let refused = |error| format!("{}: {error}", path.display());
    let file = File::options().read(true).write(true).open(path).map_err(refused)?;
    let length = usize::try_from(file.metadata()?.len())?;
    if length < 4096 {
        return Err(format!("{}: {length} bytes are too few", path.display()).into());
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at an address that the kernel chooses, disturbs nothing.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, &file, 0) };
    Ok(base.map_err(|error| refused(error.into()))?.cast())
}

/// The memory of the first ivshmem device, switched on.
fn ivshmem(resource: &str) -> Result<PathBuf, Box<dyn Error>> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let device = entry?.path();
        let is = |file, text| fs::read_to_string(device.join(file)).is_ok_and(|found| found.trim() == text);
        if is("vendor", "0x1af4") && is("device", "0x1110") {
            fs::write(device.join("enable"), "1")?;
            return Ok(device.join(resource));
        }
    }
    Err("no ivshmem device".into())
}
