//! The first bytes of a segment: what it is, and where everything in it lies.
//!
//! The header is read once, into private memory, and checked as a whole; afterwards only the
//! [`Geometry`] that came out of it is used, whatever peers write over the header.

use core::mem::offset_of;

use crosslock_core::{CpuId, HashEntry, PerCpu, RawRobust, Seat};
use rustix::param::page_size;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::barrier::Release;
use crate::directory::Entry;
use crate::domain::DomainRecord;
use crate::error::{Error, Result};
use crate::lease;
use crate::participant::{COUNTERS, Record};

/// The version of everything that is laid down in `docs/segment.md`.
pub(crate) const ABI_VERSION: u32 = 3;

/// The first eight bytes of every segment.
pub(crate) const MAGIC: [u8; 8] = *b"CROSSLCK";

/// Reads as `0x04030201` where the byte order is the other one.
const BYTE_ORDER: u32 = 0x0102_0304;

/// Feature bits that this version knows.
const KNOWN_FEATURES: u64 = 0;

/// Flag: made by a tool; whoever finds it unattached may remove it.
pub(crate) const TEMPORARY: u32 = 1;

/// Flag: the robust locks in it are released by an exchange.
pub(crate) const RELEASE_BY_EXCHANGE: u32 = 2;

const KNOWN_FLAGS: u32 = TEMPORARY | RELEASE_BY_EXCHANGE;

/// Everything starts on a cache line of its own.
pub(crate) const LINE: usize = 64;

/// Largest number of slots that a lock word can name.
pub(crate) const MAX_SLOTS: u32 = 16_383;

/// Largest directory: a bound on the work of a search.
pub(crate) const MAX_OBJECTS: u32 = 1 << 16;

/// The header as it lies in the file, little-endian. All of it is constant from the segment's creation to
/// its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) byte_order: u32,
    pub(crate) abi_version: u32,
    /// Bytes before the first table, the bump pointer included.
    pub(crate) header_size: u64,
    pub(crate) total_size: u64,
    pub(crate) features: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) flags: u32,
    pub(crate) slots: u32,
    pub(crate) counters: u32,
    pub(crate) hash_entries: u32,
    pub(crate) objects: u32,
    /// Of the machine: each slot has a page.
    pub(crate) page_size: u32,
    pub(crate) per_cpu: u64,
    pub(crate) participants: u64,
    pub(crate) hash: u64,
    pub(crate) directory: u64,
    pub(crate) seats: u64,
    pub(crate) alive: u64,
    pub(crate) heap: u64,
    pub(crate) domain_table: u64,
    /// Kernels that the slots are divided among.
    pub(crate) domains: u32,
    pub(crate) reserved: u32,
}

/// Where the bump pointer of the heap lies; it and the next two are all of the first lines that changes.
pub(crate) const BUMP_OFFSET: usize = 192;

/// Where the count of slots lies that have ever been used.
pub(crate) const HIGH_OFFSET: usize = BUMP_OFFSET + 8;

/// Where the robust lock lies that creators of objects take in a segment of several domains.
pub(crate) const CREATION_OFFSET: usize = 256;

/// The header, and the words that change, each on lines of their own.
pub(crate) const HEADER_SIZE: usize = CREATION_OFFSET + size_of::<RawRobust>();

const _: () = {
    assert!(offset_of!(Header, byte_order) == 8);
    assert!(offset_of!(Header, abi_version) == 12);
    assert!(offset_of!(Header, header_size) == 16);
    assert!(offset_of!(Header, total_size) == 24);
    assert!(offset_of!(Header, features) == 32);
    assert!(offset_of!(Header, uuid) == 40);
    assert!(offset_of!(Header, flags) == 56);
    assert!(offset_of!(Header, slots) == 60);
    assert!(offset_of!(Header, counters) == 64);
    assert!(offset_of!(Header, hash_entries) == 68);
    assert!(offset_of!(Header, objects) == 72);
    assert!(offset_of!(Header, page_size) == 76);
    assert!(offset_of!(Header, per_cpu) == 80);
    assert!(offset_of!(Header, participants) == 88);
    assert!(offset_of!(Header, hash) == 96);
    assert!(offset_of!(Header, directory) == 104);
    assert!(offset_of!(Header, seats) == 112);
    assert!(offset_of!(Header, alive) == 120);
    assert!(offset_of!(Header, heap) == 128);
    assert!(offset_of!(Header, domain_table) == 136);
    assert!(offset_of!(Header, domains) == 144);
    assert!(size_of::<Header>() == 152);
    assert!(size_of::<Header>() <= BUMP_OFFSET);
    assert!(MAX_SLOTS as usize == CpuId::MAX.index() + 1);
    assert!(size_of::<PerCpu>() == 384 && align_of::<PerCpu>() <= LINE);
    assert!(size_of::<Seat>() == 128 && align_of::<Seat>() <= LINE);
    assert!(size_of::<HashEntry>() == 16 && align_of::<HashEntry>() <= LINE);
};

/// Kernels that can use a segment at once.
pub(crate) const MAX_DOMAINS: u32 = 64;

/// A header whose numbers have been checked: every table is aligned, inside the file and apart from the
/// others. Private to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) uuid: [u8; 16],
    pub(crate) temporary: bool,
    pub(crate) release: Release,
    pub(crate) total_size: usize,
    pub(crate) page_size: usize,
    pub(crate) slots: usize,
    pub(crate) hash_entries: usize,
    pub(crate) objects: usize,
    pub(crate) per_cpu: usize,
    pub(crate) participants: usize,
    pub(crate) hash: usize,
    pub(crate) directory: usize,
    pub(crate) seats: usize,
    pub(crate) alive: usize,
    pub(crate) heap: usize,
    pub(crate) domain_table: usize,
    pub(crate) domains: usize,
}

/// Where a table lies.
#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    offset: u64,
    len: u64,
    align: u64,
}

/// The tables of a header, in the order in which they are laid down.
fn tables(header: &Header) -> [Table; 8] {
    const ALIGN: u64 = LINE as u64;

    let table = |name, offset, count: u32, each: usize| {
        let len = u64::from(count) * each as u64;
        Table { name, offset, len, align: ALIGN }
    };
    let page = u64::from(header.page_size);
    let alive = Table {
        name: "alive",
        offset: header.alive,
        len: page * u64::from(header.slots),
        align: page.max(1),
    };
    let heap = header.total_size.saturating_sub(header.heap);
    [
        table("per_cpu", header.per_cpu, header.slots, size_of::<PerCpu>()),
        table("participants", header.participants, header.slots, size_of::<Record>()),
        table("hash", header.hash, header.hash_entries, size_of::<HashEntry>()),
        table("directory", header.directory, header.objects, size_of::<Entry>()),
        table("seats", header.seats, header.slots, size_of::<Seat>()),
        table("domain_table", header.domain_table, header.domains, size_of::<DomainRecord>()),
        alive,
        Table { name: "heap", offset: header.heap, len: heap, align: ALIGN },
    ]
}

impl Header {
    /// The header of a new segment: the tables one after the other, then `heap_size` bytes of heap.
    pub(crate) fn plan(
        uuid: [u8; 16],
        flags: u32,
        domains: u32,
        slots: u32,
        objects: u32,
        heap_size: u64,
    ) -> Self {
        let header = Self {
            magic: MAGIC,
            byte_order: BYTE_ORDER,
            abi_version: ABI_VERSION,
            header_size: HEADER_SIZE as u64,
            total_size: 0,
            features: 0,
            uuid,
            flags,
            slots,
            counters: COUNTERS,
            hash_entries: (4 * slots).next_power_of_two(),
            objects,
            page_size: machine_page_size(),
            per_cpu: 0,
            participants: 0,
            hash: 0,
            directory: 0,
            seats: 0,
            alive: 0,
            heap: 0,
            domain_table: 0,
            domains,
            reserved: 0,
        };
        let mut end = header.header_size;
        let [per_cpu, participants, hash, directory, seats, domain_table, alive, heap] =
            tables(&header).map(|table| {
                let start = end.next_multiple_of(table.align);
                end = start + table.len;
                start
            });
        let total_size = heap + heap_size;
        Self {
            per_cpu,
            participants,
            hash,
            directory,
            seats,
            domain_table,
            alive,
            heap,
            total_size,
            ..header
        }
    }

    /// Checks everything that can be checked against `file_size`, the size of the file now.
    pub(crate) fn check(&self, segment: &str, file_size: u64) -> Result<Geometry> {
        self.check_identity(segment)?;
        if self.total_size != file_size {
            let (header, file) = (self.total_size, file_size);
            return Err(Error::SizeMismatch { segment: segment.into(), header, file });
        }
        self.check_in(segment, file_size)
    }

    /// As [`Header::check`], in a memory that may be larger.
    pub(crate) fn check_in(&self, segment: &str, memory_size: u64) -> Result<Geometry> {
        self.check_identity(segment)?;
        if self.total_size > memory_size {
            let (header, file) = (self.total_size, memory_size);
            return Err(Error::SizeMismatch { segment: segment.into(), header, file });
        }
        self.check_capacities().and_then(|()| self.check_tables()).and_then(|()| self.geometry()).map_err(
            |Bad { field, found, reason }| Error::BadHeader { segment: segment.into(), field, found, reason },
        )
    }

    fn check_identity(&self, segment: &str) -> Result<()> {
        let segment = || segment.into();
        if self.magic != MAGIC {
            return Err(Error::NotASegment { segment: segment(), found: self.magic.into() });
        }
        if self.byte_order != BYTE_ORDER {
            return Err(Error::ByteOrder { segment: segment(), found: self.byte_order });
        }
        if self.abi_version != ABI_VERSION {
            let (found, known) = (self.abi_version, ABI_VERSION);
            return Err(Error::AbiVersion { segment: segment(), found, known });
        }
        let unknown = self.features & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(Error::UnknownFeatures { segment: segment(), unknown });
        }
        if self.page_size != machine_page_size() {
            let (found, machine) = (self.page_size, machine_page_size());
            return Err(Error::PageSize { segment: segment(), found, machine });
        }
        Ok(())
    }

    fn check_capacities(&self) -> Result<(), Bad> {
        let slots = u64::from(self.slots);
        let hash_entries = u64::from(self.hash_entries);
        Bad::unless(self.header_size == HEADER_SIZE as u64, "header_size", self.header_size, "must be 320")?;
        Bad::unless(
            self.flags & !KNOWN_FLAGS == 0,
            "flags",
            self.flags.into(),
            "only bits 0 and 1 are known",
        )?;
        Bad::unless((1..=MAX_SLOTS.into()).contains(&slots), "slots", slots, "must be 1 to 16383")?;
        let domains = u64::from(self.domains);
        Bad::unless(
            (1..=MAX_DOMAINS.into()).contains(&domains) && slots.is_multiple_of(domains),
            "domains",
            domains,
            "must be 1 to 64, and divide the slots",
        )?;
        Bad::unless(self.counters == COUNTERS, "counters", self.counters.into(), "must be 48")?;
        Bad::unless(
            hash_entries.is_power_of_two() && (4 * slots..=16 * slots).contains(&hash_entries),
            "hash_entries",
            hash_entries,
            "must be a power of two, 4 to 16 for each slot",
        )?;
        Bad::unless(self.objects <= MAX_OBJECTS, "objects", self.objects.into(), "must be at most 65536")?;
        Bad::unless(self.total_size < lease::BASE, "total_size", self.total_size, "must be below 1 TiB")
    }

    fn check_tables(&self) -> Result<(), Bad> {
        let mut tables = tables(self);
        tables.sort_by_key(|table| table.offset);
        let mut free_from = self.header_size;
        for Table { name, offset, len, align } in tables {
            Bad::unless(
                offset.is_multiple_of(align),
                name,
                offset,
                "must be a multiple of 64, of a page if pages",
            )?;
            Bad::unless(offset >= free_from, name, offset, "overlaps with what lies before it")?;
            let end = offset.checked_add(len).filter(|&end| end <= self.total_size);
            free_from = end.ok_or(Bad { field: name, found: offset, reason: "ends beyond the segment" })?;
        }
        Ok(())
    }

    fn geometry(&self) -> Result<Geometry, Bad> {
        let size = |field, value: u64| {
            usize::try_from(value).map_err(|_| Bad {
                field,
                found: value,
                reason: "exceeds the address space",
            })
        };
        Ok(Geometry {
            uuid: self.uuid,
            temporary: self.flags & TEMPORARY != 0,
            release: if self.flags & RELEASE_BY_EXCHANGE == 0 { Release::Store } else { Release::Exchange },
            total_size: size("total_size", self.total_size)?,
            page_size: size("page_size", self.page_size.into())?,
            slots: size("slots", self.slots.into())?,
            hash_entries: size("hash_entries", self.hash_entries.into())?,
            objects: size("objects", self.objects.into())?,
            per_cpu: size("per_cpu", self.per_cpu)?,
            participants: size("participants", self.participants)?,
            hash: size("hash", self.hash)?,
            directory: size("directory", self.directory)?,
            seats: size("seats", self.seats)?,
            alive: size("alive", self.alive)?,
            heap: size("heap", self.heap)?,
            domain_table: size("domain_table", self.domain_table)?,
            domains: size("domains", self.domains.into())?,
        })
    }
}

fn machine_page_size() -> u32 {
    // No machine has pages of 4 GiB.
    u32::try_from(page_size()).unwrap_or(u32::MAX)
}

/// A number in the header that cannot be.
struct Bad {
    field: &'static str,
    found: u64,
    reason: &'static str,
}

impl Bad {
    fn unless(fine: bool, field: &'static str, found: u64, reason: &'static str) -> Result<(), Self> {
        if fine { Ok(()) } else { Err(Self { field, found, reason }) }
    }
}
