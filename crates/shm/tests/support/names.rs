//! Who is in a segment, as the tests of names and deaths see it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::Instant;

use crosslock::Segment;
use crosslock::crosslock_core::primitive::Ordering;
use crosslock::crosslock_core::{CpuId, Name, RobustOps};

use super::Actor;

pub(crate) fn me(segment: &Segment) -> Name {
    segment.context().unwrap().me().unwrap()
}

pub(crate) fn is_dead(segment: &Segment, name: Name) -> bool {
    segment.context().unwrap().is_dead(name)
}

pub(crate) fn holder(segment: &Segment, slot: usize) -> Name {
    segment.context().unwrap().name_of(CpuId::new(slot).unwrap()).unwrap()
}

/// One sleep, at most, until `watched` is dead.
pub(crate) fn doze(segment: &Segment, watched: Name, until_ns: u64) {
    let (context, me) = (segment.context().unwrap(), me(segment));
    let seen = context.seats()[me.slot().index()].kicks().load(Ordering::Acquire);
    context.sleep(me, seen, watched, until_ns);
}

pub(crate) fn sleep_until_dead(segment: &Segment, watched: Name) -> Instant {
    while !is_dead(segment, watched) {
        doze(segment, watched, u64::MAX);
    }
    Instant::now()
}

/// A thread that has registered, and ends as soon as it is told.
pub(crate) fn registered(segment: &Segment, end: fn()) -> (Name, mpsc::Sender<()>) {
    let (told, (wait, go)) = (segment.clone(), mpsc::channel::<()>());
    let (tell, name) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(me(&told)).unwrap();
        drop(told);
        let _ = go.recv();
        end();
    });
    (name.recv().unwrap(), wait)
}

pub(crate) fn u32_at(file: &File, at: u64) -> u32 {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).unwrap();
    u32::from_ne_bytes(bytes)
}

/// Where the header says that something begins.
pub(crate) fn header_says(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

pub(crate) const RECORDS: u64 = 88;
pub(crate) const ALIVE: u64 = 120;

pub(crate) fn alive_word_at(file: &File, slot: CpuId) -> u64 {
    let slot = slot.index() as u64;
    let offset = u32_at(file, header_says(file, RECORDS) + 448 * slot + 12);
    header_says(file, ALIVE) + 4096 * slot + u64::from(offset)
}

/// The name that an actor says it has.
pub(crate) fn hear_name(actor: &mut Actor) -> Name {
    Name::from_bits(actor.hear().parse().unwrap()).unwrap()
}
