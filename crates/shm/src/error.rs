//! What can go wrong with a segment, said so that a person knows what to do.

use std::io;

use crosslock_core::Corrupted;
use thiserror::Error;

use crate::directory::{Kind, ObjectType};
use crate::domain::DomainId;

/// Why a segment, an object in it or a lock cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of a segment or of an object is not one.
    #[error("{name:?} cannot be a name: {reason}")]
    InvalidName {
        /// The name given.
        name: Box<str>,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// An option is out of range.
    #[error("{option} = {value} is out of range: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: u64,
        /// What it must be.
        reason: &'static str,
    },
    /// [`create`](crate::Options::create) found the name taken.
    #[error("{segment} exists already; open it, or remove it if nobody uses it")]
    Exists {
        /// Which segment.
        segment: Box<str>,
    },
    /// There is no such segment.
    #[error("there is no segment {segment}; create it first")]
    NotFound {
        /// Which segment.
        segment: Box<str>,
    },
    /// The permissions of the segment do not let this user in.
    #[error("{segment} may not be opened by this user ({mode}); ask its owner to change its mode")]
    PermissionDenied {
        /// Which segment.
        segment: Box<str>,
        /// What was asked for: `"read-write"` or `"read-only"`.
        mode: &'static str,
    },
    /// The name belongs to something that is not a regular file.
    #[error("{segment} is a {found}, not a regular file, so it is no segment")]
    NotRegular {
        /// Which segment.
        segment: Box<str>,
        /// What it is.
        found: &'static str,
    },
    /// The file does not start as a segment does.
    #[error("{segment} is no crosslock segment: it starts with {found:02x?}")]
    NotASegment {
        /// Which segment.
        segment: Box<str>,
        /// The first bytes, at most eight.
        found: Box<[u8]>,
    },
    /// The file is shorter than its header.
    #[error("{segment} is cut short: {size} bytes, the header alone has {needed}; remove it")]
    Truncated {
        /// Which segment.
        segment: Box<str>,
        /// Its size in bytes.
        size: u64,
        /// The least size in bytes.
        needed: u64,
    },
    /// The byte-order mark is not that of a little-endian machine.
    #[error(
        "{segment} was written on a big-endian machine, or its byte-order mark ({found:#010x}) is damaged; segments are little-endian"
    )]
    ByteOrder {
        /// Which segment.
        segment: Box<str>,
        /// The mark found.
        found: u32,
    },
    /// The segment has another ABI version.
    #[error(
        "{segment} has ABI version {found}, this program knows {known}; use programs built with the same crosslock ABI"
    )]
    AbiVersion {
        /// Which segment.
        segment: Box<str>,
        /// The version in the header.
        found: u32,
        /// The version of this crate.
        known: u32,
    },
    /// The segment uses features that this version does not know.
    #[error("{segment} needs features {unknown:#x}, which this program does not know; use a newer one")]
    UnknownFeatures {
        /// Which segment.
        segment: Box<str>,
        /// The unknown bits.
        unknown: u64,
    },
    /// The segment was made on a machine with other pages.
    #[error(
        "{segment} has pages of {found} bytes, this machine has {machine}; create it anew on this machine"
    )]
    PageSize {
        /// Which segment.
        segment: Box<str>,
        /// What the header says, in bytes.
        found: u32,
        /// This machine's, in bytes.
        machine: u32,
    },
    /// This process cannot take part in the barriers that the segment's locks rely on.
    #[error(
        "{segment}: its locks are released by a store, which needs membarrier, which this process may not use ({source}); allow the system call, or create the segment with Release::Exchange"
    )]
    NoBarrier {
        /// Which segment.
        segment: Box<str>,
        /// Why not.
        source: io::Error,
    },
    /// The file's size is not the one in its header.
    #[error("{segment} has {file} bytes, but its header says {header}; it was cut or extended, remove it")]
    SizeMismatch {
        /// Which segment.
        segment: Box<str>,
        /// What the header says.
        header: u64,
        /// What the file has.
        file: u64,
    },
    /// The header's numbers do not fit together.
    #[error("the header of {segment} is damaged: {field} = {found}, {reason}")]
    BadHeader {
        /// Which segment.
        segment: Box<str>,
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// The segment was mapped read-only, and the operation needs to write.
    #[error("the segment is mapped read-only; open it read-write to {wanted}")]
    ReadOnly {
        /// What was asked for.
        wanted: &'static str,
    },
    /// All participant slots are taken by living threads, or by threads that died in a queue.
    #[error("all {slots} participant slots are taken; create the segment with more of them")]
    TooManyParticipants {
        /// How many there are.
        slots: usize,
    },
    /// The segment is for fewer kernels.
    #[error("{segment} has {domains} domains, counted from 0, and {domain} is none of them that lives")]
    NoSuchDomain {
        /// Which segment.
        segment: Box<str>,
        /// What was asked for.
        domain: DomainId,
        /// How many there are.
        domains: usize,
    },
    /// The virtual machine's device could not be had.
    #[cfg(feature = "ivshmem")]
    #[error("cannot have the device of this virtual machine: {source}")]
    Device {
        /// Why.
        source: Box<crosslock_ivshmem::Error>,
    },
    /// Another thread stands for this domain.
    #[error("{agent} stands for domain {domain} already, and lives")]
    AgentLives {
        /// Which domain.
        domain: usize,
        /// Which thread.
        agent: crosslock_core::Name,
    },
    /// A thread cannot register while its thread-local data is being destroyed, nor inside a signal handler
    /// that interrupted its registration.
    #[error(
        "this thread cannot register now: it is ending, or in a signal handler that interrupted its registration"
    )]
    NotNow,
    /// Somebody has kept a lock on the segment's bookkeeping for a very long time.
    #[error(
        "{segment}: its {what} has been locked by another process for {waited_ms} ms; is that process stopped?"
    )]
    Busy {
        /// Which segment.
        segment: Box<str>,
        /// Which lock.
        what: &'static str,
        /// How long this thread has waited, in milliseconds.
        waited_ms: u64,
    },
    /// The named object exists, and is something else.
    #[error("object {name:?} is {found}, not {wanted}; both sides must use the same type, or another name")]
    Mismatch {
        /// The object's name.
        name: Box<str>,
        /// What the segment has.
        found: Box<ObjectType>,
        /// What was asked for.
        wanted: Box<ObjectType>,
    },
    /// The named object does not exist, and this operation does not create it.
    #[error("the segment has no object {name:?} of kind {kind}")]
    NoSuchObject {
        /// The name asked for.
        name: Box<str>,
        /// The kind asked for.
        kind: Kind,
    },
    /// No free entry in the directory of objects.
    #[error("all {entries} entries of the segment's directory are in use; create the segment with more")]
    DirectoryFull {
        /// How many there are.
        entries: usize,
    },
    /// Not enough memory in the segment.
    #[error(
        "the segment has {free} bytes left, the object needs {needed}; create the segment with a larger heap"
    )]
    HeapFull {
        /// What is left, in bytes.
        free: u64,
        /// What is needed, in bytes.
        needed: u64,
    },
    /// A directory entry or the heap's end holds what no correct peer writes.
    #[error(
        "the segment's {what} is damaged ({found:#x}); a peer wrote garbage, do not use the segment any more"
    )]
    Damaged {
        /// What is.
        what: &'static str,
        /// The value found.
        found: u64,
    },
    /// An owner of the lock died inside: the data may be half changed. What [`LockError::OwnerDied`](crate::LockError) becomes
    /// where nobody handles it.
    #[error(
        "an owner of the lock died inside, the data may be half changed; look at them, repair them and mark them consistent"
    )]
    OwnerDied,
    /// An owner of the lock panicked inside: the data may be half changed.
    #[error(
        "an owner of the lock panicked inside, the data may be half changed; look at them, repair them and mark them consistent"
    )]
    Poisoned,
    /// An owner died inside, and the next one did not mark the data consistent.
    #[error(
        "the lock is not recoverable: an owner died inside, and the next one left without marking the data consistent; make a new object, or force the lock open"
    )]
    NotRecoverable,
    /// The thread reads under as many locks as it can.
    #[error("this thread reads under {} locks already, which is the most", crosslock_core::READS)]
    TooManyReads,
    /// The lock was not to be had in time.
    #[error("the lock was not free in time")]
    TimedOut,
    /// The thread has the lock already.
    #[error("this thread has locked it already, and would wait for itself for ever")]
    Deadlock,
    /// A lock's words hold what no correct peer writes.
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
    /// The operating system refused.
    #[error("{segment}: cannot {what}: {source}")]
    Io {
        /// Which segment.
        segment: Box<str>,
        /// What failed.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the operating system refused to do `what` with `segment`.
    pub(crate) fn io<E: Into<io::Error>>(segment: &str, what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { segment: segment.into(), what, source: source.into() }
    }
}

/// What every fallible function here gives.
pub type Result<T, E = Error> = core::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_no_burden_to_the_result_of_a_lock() {
        assert!(size_of::<Error>() <= 64, "{}", size_of::<Error>());
    }
}
