//! How to create, open, list and remove segments.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::unlink;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::barrier::Release;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::file;
use crate::header::{Header, MAX_DOMAINS, MAX_OBJECTS, MAX_SLOTS, RELEASE_BY_EXCHANGE, TEMPORARY};
use crate::lease::{BASE, Lease, Mode};
use crate::name::path_in;
use crate::segment::Segment;

/// Where a segment is, and what a new one is like; after [`std::fs::OpenOptions`].
///
/// ```
/// let name = format!("doc-options-{}", std::process::id());
/// let options = crosslock::Options::new().participants(32).heap_size(1 << 16);
/// let segment = options.create(&name)?;
/// assert_eq!(segment.slots(), 32);
/// options.remove(&name)?;
/// # Ok::<(), crosslock::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    directory: PathBuf,
    mode: u32,
    temporary: bool,
    release: Option<Release>,
    domains: u32,
    slots: u32,
    objects: u32,
    heap_size: u64,
    size: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// `/dev/shm`, mode 0600, 256 participants, 128 objects, 1 MiB of heap, not temporary.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: "/dev/shm".into(),
            mode: 0o600,
            temporary: false,
            release: None,
            domains: 1,
            slots: 256,
            objects: 128,
            heap_size: 1 << 20,
            size: None,
        }
    }

    /// The directory in which segments are files; best one in memory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// The permissions of a new segment's file, whatever the umask; only the lowest nine bits count, and the
    /// owner may always read and write.
    ///
    /// Whoever may write a segment may destroy what is in it.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777 | 0o600;
        self
    }

    /// Marks a new segment as one that [`Options::remove_stale`] may remove when nobody has it attached.
    #[must_use]
    pub fn temporary(mut self, temporary: bool) -> Self {
        self.temporary = temporary;
        self
    }

    /// How the robust locks of a new segment are released: by default with a store, where the kernel has
    /// `membarrier`.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = Some(release);
        self
    }

    /// How large a new segment is as a whole, in bytes: what the tables leave is heap, whatever [`Options::heap_size`] says. The
    /// memory of a PCI device has a size that is a power of two.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// For how many kernels: virtual machines and their host, each with an equal share of the participants. Default 1. With
    /// more the lock is released by [exchange](Release::Exchange).
    #[must_use]
    pub fn domains(mut self, domains: u32) -> Self {
        self.domains = domains;
        self
    }

    /// The permissions of a domain's home.
    pub(crate) fn home_mode(&self) -> u32 {
        self.mode
    }

    pub(crate) fn meeting_place(&self) -> &Path {
        &self.directory
    }

    /// How many threads can be registered with a new segment at once: 1 to 16383, about 1 KiB and a page each.
    #[must_use]
    pub fn participants(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// How many named objects a new segment can have: up to 65536, 96 bytes each.
    #[must_use]
    pub fn objects(mut self, objects: u32) -> Self {
        self.objects = objects;
        self
    }

    /// Bytes for the objects of a new segment; each takes its size, rounded up to 64 bytes, and a mutex 64 more.
    #[must_use]
    pub fn heap_size(mut self, bytes: u64) -> Self {
        self.heap_size = bytes;
        self
    }

    /// Creates the segment `name`, complete in one step: nobody can see, and no crash can leave, a part of it.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::InvalidName`], [`Error::InvalidOption`]; [`Error::Io`] where the
    /// operating system refuses, for lack of memory for example.
    pub fn create(&self, name: &str) -> Result<Segment> {
        let path = path_in(&self.directory, name)?;
        let label = label(&path);
        let file = file::create_unnamed(&label, &self.directory, self.mode, &self.plan(&label)?)?;
        let segment = Segment::attach(label, file, true)?;
        segment.publish(&path)?;
        Ok(segment)
    }

    /// Opens the segment `name`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`]; where it is no segment, or none that this
    /// version understands, an error that says why; [`Error::Busy`], [`Error::Io`].
    pub fn open(&self, name: &str) -> Result<Segment> {
        self.open_by_name(name, true)
    }

    /// Opens the segment `name` to look at it: nothing in it is changed, nor can be.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(&self, name: &str) -> Result<Segment> {
        self.open_by_name(name, false)
    }

    fn open_by_name(&self, name: &str, writable: bool) -> Result<Segment> {
        let path = path_in(&self.directory, name)?;
        let label = label(&path);
        let file = file::open(&label, file::locate(&label, &path)?.as_fd(), writable)?;
        let segment = Segment::attach(label, file, writable)?;
        segment.check_still_named()?;
        Ok(segment)
    }

    /// Opens the segment `name`, or creates it if there is none. Of many that do so at once, one creates it.
    ///
    /// # Errors
    /// As [`Options::open`] and [`Options::create`], except `NotFound` and `Exists`.
    pub fn open_or_create(&self, name: &str) -> Result<Segment> {
        loop {
            match self.open(name) {
                Err(Error::NotFound { .. }) => {}
                opened => return opened,
            }
            // Exists, though it was not there just now: somebody else was first, or is about to remove it.
            match self.create(name) {
                Err(Error::Exists { .. }) => {}
                created => return created,
            }
        }
    }

    /// Creates a segment without a file: it lives as long as somebody has it open. Its size is sealed.
    ///
    /// Others open it by [`Segment::from_fd`] with what [`Segment::descriptor`] gives. `name` is for
    /// people (`/proc/PID/maps`) and need not be unique.
    ///
    /// # Errors
    /// As [`Options::create`], except `Exists`.
    pub fn create_memfd(&self, name: &str) -> Result<Segment> {
        path_in(Path::new(""), name)?;
        let label = format!("memfd:{name}");
        let file = file::create_anonymous(&label, name, &self.plan(&label)?)?;
        Segment::attach(label.into(), file, true)
    }

    /// The names of all files in the directory that begin as segments do and may be read, in order.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let directory = label(&self.directory);
        let entries =
            std::fs::read_dir(&self.directory).map_err(Error::io(&directory, "read the directory"))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| self.looks_like_segment(name))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn looks_like_segment(&self, name: &str) -> bool {
        let Ok(path) = path_in(&self.directory, name) else { return false };
        let label = label(&path);
        let file = file::locate(&label, &path).and_then(|fd| file::open(&label, fd.as_fd(), false));
        file.is_ok_and(|file| file::has_magic(&file))
    }

    /// Takes the name away from the segment `name`, whoever uses it. Those who have it open keep it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRegular`], [`Error::Io`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = path_in(&self.directory, name)?;
        remove(&label(&path), &path)
    }

    /// Removes the segment `name` if it is marked as [temporary](Options::temporary) and nobody has it
    /// attached; gives whether it was removed. Nobody can attach in between.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn remove_stale(&self, name: &str) -> Result<bool> {
        let path = path_in(&self.directory, name)?;
        let label = label(&path);
        let file: Description = file::open(&label, file::locate(&label, &path)?.as_fd(), true)?;
        if !file::read_geometry(&label, &file)?.temporary {
            return Ok(false);
        }
        let alone = Lease::Attached.try_lock(file.as_fd(), Mode::Exclusive);
        if !alone.map_err(Error::io(&label, "lock its file"))? || !file::has_name(&label, &file)? {
            return Ok(false);
        }
        remove(&label, &path).map(|()| true)
    }

    fn plan(&self, label: &str) -> Result<Header> {
        let check = |fine: bool, option, value, reason| {
            if fine { Ok(()) } else { Err(Error::InvalidOption { option, value, reason }) }
        };
        let slots = u64::from(self.slots);
        check((1..=MAX_SLOTS).contains(&self.slots), "participants", slots, "from 1 to 16383")?;
        check(self.objects <= MAX_OBJECTS, "objects", self.objects.into(), "at most 65536")?;
        check(self.heap_size <= BASE / 2, "heap_size", self.heap_size, "at most 512 GiB")?;
        let mut uuid = [0; 16];
        // So few bytes come at once, or not at all.
        getrandom(&mut uuid, GetRandomFlags::empty()).map_err(Error::io(label, "draw a random identity"))?;
        check(
            (1..=MAX_DOMAINS).contains(&self.domains) && self.slots.is_multiple_of(self.domains),
            "domains",
            self.domains.into(),
            "from 1 to 64, and dividing the participants",
        )?;
        let best = || if self.domains > 1 { Release::Exchange } else { Release::best() };
        let release = self.release.unwrap_or_else(best);
        check(
            self.domains == 1 || release == Release::Exchange,
            "domains",
            self.domains.into(),
            "1, to release by store",
        )?;
        let release = match release {
            Release::Store => 0,
            Release::Exchange => RELEASE_BY_EXCHANGE,
        };
        let flags = release | if self.temporary { TEMPORARY } else { 0 };
        let plan = |heap_size| Header::plan(uuid, flags, self.domains, self.slots, self.objects, heap_size);
        let Some(size) = self.size else { return Ok(plan(self.heap_size)) };
        check(size <= BASE / 2, "size", size, "at most 512 GiB")?;
        let heap_size = size.checked_sub(plan(0).total_size);
        heap_size.map(plan).ok_or(Error::InvalidOption {
            option: "size",
            value: size,
            reason: "too small for so many participants and objects",
        })
    }
}

fn label(path: &Path) -> Box<str> {
    path.to_string_lossy().into()
}

fn remove(label: &str, path: &Path) -> Result<()> {
    unlink(path).map_err(|error| match error {
        Errno::NOENT => Error::NotFound { segment: label.into() },
        Errno::ISDIR => Error::NotRegular { segment: label.into(), found: "directory" },
        other => Error::io(label, "remove it")(other),
    })
}

impl Segment {
    /// [`Options::create`] with the defaults.
    ///
    /// # Errors
    /// As [`Options::create`].
    pub fn create(name: &str) -> Result<Self> {
        Options::new().create(name)
    }

    /// [`Options::open`] in `/dev/shm`.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(name: &str) -> Result<Self> {
        Options::new().open(name)
    }

    /// [`Options::open_or_create`] with the defaults.
    ///
    /// # Errors
    /// As [`Options::open_or_create`].
    pub fn open_or_create(name: &str) -> Result<Self> {
        Options::new().open_or_create(name)
    }

    /// [`Options::open_read_only`] in `/dev/shm`.
    ///
    /// # Errors
    /// As [`Options::open_read_only`].
    pub fn open_read_only(name: &str) -> Result<Self> {
        Options::new().open_read_only(name)
    }

    /// [`Options::remove`] in `/dev/shm`.
    ///
    /// # Errors
    /// As [`Options::remove`].
    pub fn remove(name: &str) -> Result<()> {
        Options::new().remove(name)
    }

    /// Attaches to the segment behind a descriptor that was inherited or received, whatever made it. If it
    /// is a memfd, its size is sealed.
    ///
    /// The descriptor itself is closed: the segment is opened anew, since leases must not be shared.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let label = format!("descriptor {}", fd.as_raw_fd());
        let file = file::open(&label, fd.as_fd(), true)?;
        file::seal(&label, &file)?;
        Self::attach(label.into(), file, true)
    }
}
