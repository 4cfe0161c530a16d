//! Segments in the memory of a device: what a guest sees of a segment that its host serves.
//!
//! The header is read through the mapping, as nothing else can be read from a device's memory. It may lie in a larger memory: those
//! of devices have sizes that are powers of two.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crosslock_core::primitive::{AtomicU64, Ordering};
use rustix::fs::{Mode, OFlags, fstat};

use crate::domain::{DomainId, DomainRecord, domain_home};
use crate::error::{Error, Result};
use crate::header::{Geometry, Header};
use crate::home::{Home, Opened};
use crate::lease::Lease;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::segment::Segment;

impl Options {
    /// Opens the segment in the memory that `path` maps, which is no ordinary memory: the resource file of a PCI device
    /// (`/sys/bus/pci/devices/.../resource2_wc`). This kernel is `domain` of it; all its processes say the same, and
    /// meet in a file in [`Options::directory`].
    ///
    /// Until a thread [stands for](Segment::stand_for_domain) the domain, its threads that wait for other domains look
    /// every millisecond, and their deaths are not known there.
    ///
    /// # Errors
    /// [`Error::NotASegment`] and the others of [`Options::open`]; [`Error::NoSuchDomain`].
    pub fn open_device(&self, path: &Path, domain: DomainId) -> Result<Segment> {
        let label: Box<str> = path.to_string_lossy().into();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let device = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(&label, "open it"))?;
        self.open_device_fd(device.as_fd(), &label, domain)
    }

    /// The same for a descriptor that somebody else has opened; errors call it `label`.
    ///
    /// # Errors
    /// As [`Options::open_device`].
    pub fn open_device_fd(&self, device: BorrowedFd<'_>, label: &str, domain: DomainId) -> Result<Segment> {
        let label: Box<str> = label.into();
        let size = fstat(device).map_err(Error::io(&label, "look at it"))?.st_size.unsigned_abs();
        let needed = size_of::<Header>() as u64;
        let mapped = usize::try_from(size).ok().filter(|_| size >= needed);
        let mapped = mapped.ok_or(Error::Truncated { segment: label.clone(), size, needed })?;
        let mapping = Mapping::new(device, mapped, true).map_err(Error::io(&label, "map it into memory"))?;
        let geometry = read_header(&mapping).check_in(&label, size)?;
        let number = self.find_domain(&mapping, &geometry, domain).ok_or_else(|| Error::NoSuchDomain {
            segment: label.clone(),
            domain,
            domains: geometry.domains,
        })?;
        let home = domain_home(self.meeting_place(), &geometry.uuid, number);
        let slots = geometry.slots / geometry.domains;
        let Opened { file, home, is_new } = Home::open_or_create(&home, slots, self.home_mode())?;
        let segment = Segment::new(label, geometry, mapping, file, true, number, Some(home));
        if is_new {
            segment.inner().settle();
            // The new home is locked until now. Should it fail, it ends with the process.
            let _ = Lease::Registry.unlock(segment.inner().description().as_fd());
        }
        Ok(segment)
    }

    fn find_domain(&self, mapping: &Mapping, geometry: &Geometry, domain: DomainId) -> Option<usize> {
        let records = mapping.slice::<DomainRecord>(geometry.domain_table, geometry.domains);
        let is_open = |&number: &usize| {
            records[number].is_alive() && domain_home(self.meeting_place(), &geometry.uuid, number).exists()
        };
        match domain {
            DomainId::Number(number) => Some(number as usize).filter(|&number| number < records.len()),
            DomainId::Peer(peer) => records.iter().position(|record| record.is_peer(peer)),
            DomainId::Here => (0..records.len()).find(is_open),
        }
    }
}

/// Word by word, as the memory is not ordinary.
fn read_header(mapping: &Mapping) -> Header {
    let words = mapping.slice::<AtomicU64>(0, size_of::<Header>() / size_of::<u64>());
    let mut bytes = [0; size_of::<Header>()];
    for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(size_of::<u64>())) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    zerocopy::transmute!(bytes)
}
