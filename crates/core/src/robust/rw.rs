//! Many readers or one writer, none of whom stops the others by dying.
//!
//! ```text
//!   reader                                 writer
//!   ------------------------------------   -------------------------------------
//!   seat.reads += lock                     gate taken
//!   barrier                          [R]   barrier
//!   gate free?  then it is in              who reads?  sleeps on each, until none
//!                                          writing = me
//!   ...                                    ...
//!   seat.reads -= lock                     writing = 0
//!   barrier                          [D]   gate given up
//!   drain?      then kicks that writer
//! ```
//! There is no count of readers that a dead one could leave wrong: each says in its own [`Seat`](super::Seat) what it reads
//! under, and a writer does not count those who are dead. A reader that finds the gate taken waits for it in the queue
//! like a writer, notes itself, and gives it up: so writers and readers come in turns.
//!
//! The gate is a [`RawRobust`]. A death of its owner taints the data only if `writing` is set: readers own the gate
//! for a moment, and writers before they begin.
//!
//! [R] and [D] are pairs as those of the gate: where there is a heavy barrier, readers pay nothing, and a
//! writer pays for all (some microseconds). After the big-reader locks of Linux 2.4, and the hazard pointers of Michael
//! (2004).

use core::fmt;

use super::seat::living;
use super::{Condition, NAP_NS, Name, Ownership, RawRobust, Refused, RobustOps, Seat};
use crate::error::Corrupted;
use crate::primitive::{AtomicU64, Ordering, const_new, fence, light_barrier, zeroes};
use crate::raw::LockType;

/// A robust lock for many readers or one writer; see the module's documentation.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RawRobustRw {
    gate: RawRobust,
    /// Bits of the writer that waits for readers to leave; 0: none.
    drain: AtomicU64,
    /// Bits of the writer that is changing the data, or that found or left them suspect of a death; 0: none.
    writing: AtomicU64,
    reserved: [AtomicU64; 6],
}

impl RawRobustRw {
    const_new! {
        /// A free lock.
        pub fn new() -> Self {
            Self {
                gate: RawRobust::new(),
                drain: AtomicU64::new(0),
                writing: AtomicU64::new(0),
                reserved: zeroes(),
            }
        }
    }

    /// Waits until nobody writes, and reads from then on; at most until the clock of `cx` shows `until_ns`. May be
    /// called again by one who reads already.
    ///
    /// # Errors
    /// [`Refused`]; [`Refused::Deadlock`] where the caller writes.
    #[inline]
    pub fn read<C: RobustOps>(&self, cx: &C, me: Name, until_ns: u64) -> Result<Condition, Refused> {
        match self.begin_to_read(cx, me)? {
            Some(condition) => Ok(condition),
            None => self.read_through_the_gate(cx, me, until_ns),
        }
    }

    /// Reads from now on if nobody writes, or waits to write; never waits. `None` where somebody does.
    ///
    /// # Errors
    /// As [`RawRobustRw::read`].
    #[inline]
    pub fn try_read<C: RobustOps>(&self, cx: &C, me: Name) -> Result<Option<Condition>, Refused> {
        if let Some(condition) = self.begin_to_read(cx, me)? {
            return Ok(Some(condition));
        }
        match self.gate.try_acquire(cx, me)? {
            Some(found) => self.pass_the_gate(cx, me, found).map(Some),
            None => Ok(None),
        }
    }

    /// Stops reading.
    ///
    /// # Safety
    /// The caller reads under the name `me`, by a `read` or `try_read` that it has not ended yet.
    #[inline]
    pub unsafe fn end_read<C: RobustOps>(&self, cx: &C, me: Name) {
        // Not there only if a peer wrote garbage; then there is nothing left to end.
        if let Some(read) = seat(cx, me).and_then(|seat| seat.read(self.key(cx))) {
            self.stop_reading(cx, read);
        }
    }

    /// Waits until nobody else reads or writes, and writes from then on; at most until the clock of `cx` shows
    /// `until_ns`.
    ///
    /// # Errors
    /// [`Refused`]; [`Refused::Deadlock`] also where the caller reads.
    pub fn write<C: RobustOps>(&self, cx: &C, me: Name, until_ns: u64) -> Result<Condition, Refused> {
        if self.is_reading(cx, me) {
            return Err(Refused::Deadlock);
        }
        let found = self.gate.acquire_until(cx, me, until_ns)?;
        if !self.wait_for_readers(cx, me, until_ns) {
            self.give_the_gate_back(cx, me, found)?;
            return Err(Refused::TimedOut);
        }
        self.begin_to_write(me, found)
    }

    /// Writes from now on if nobody else reads or writes; does not wait. `None` where somebody does.
    ///
    /// # Errors
    /// As [`RawRobustRw::write`], except [`Refused::TimedOut`].
    pub fn try_write<C: RobustOps>(&self, cx: &C, me: Name) -> Result<Option<Condition>, Refused> {
        if self.is_reading(cx, me) {
            return Ok(None);
        }
        let Some(found) = self.gate.try_acquire(cx, me)? else { return Ok(None) };
        if !self.wait_for_readers(cx, me, 0) {
            self.give_the_gate_back(cx, me, found)?;
            return Ok(None);
        }
        self.begin_to_write(me, found).map(Some)
    }

    /// Stops writing, as [`RawRobust::release`].
    ///
    /// # Errors
    /// As [`RawRobust::release`].
    ///
    /// # Safety
    /// The caller writes under the name `me`.
    pub unsafe fn end_write<C: RobustOps>(&self, cx: &C, me: Name) -> Result<(), Corrupted> {
        let condition = self.gate.condition(me)?;
        self.write_no_more(condition);
        // SAFETY: a writer owns the gate.
        unsafe { self.gate.release(cx, me) }
    }

    /// Stops writing, as [`RawRobust::release_as`].
    ///
    /// # Errors
    /// As [`RawRobust::release`].
    ///
    /// # Safety
    /// The caller writes under the name `me`.
    pub unsafe fn end_write_as<C: RobustOps>(
        &self,
        cx: &C,
        me: Name,
        condition: Condition,
    ) -> Result<(), Corrupted> {
        // First: should this one die between the two, then `writing` or the word tells of it.
        self.gate.amend(me, condition)?;
        self.write_no_more(condition);
        // SAFETY: a writer owns the gate.
        unsafe { self.gate.release_as(cx, me, condition) }
    }

    /// As [`RawRobust::mark_consistent`].
    ///
    /// # Errors
    /// As [`RawRobust::release`].
    ///
    /// # Safety
    /// The caller writes under the name `me`.
    pub unsafe fn mark_consistent(&self, me: Name) -> Result<(), Corrupted> {
        // SAFETY: a writer owns the gate.
        unsafe { self.gate.mark_consistent(me) }
    }

    /// The lock that writers have, and readers for a moment.
    pub fn gate(&self) -> &RawRobust {
        &self.gate
    }

    /// The writer that is changing the data, or that died or was evicted when it was; old news when it arrives.
    pub fn writing(&self) -> Option<Name> {
        Name::from_bits(self.writing.load(Ordering::Relaxed))
    }

    /// Those who read now, and live.
    pub fn readers<C: RobustOps>(&self, cx: &C) -> impl Iterator<Item = Name> {
        let key = self.key(cx);
        living(cx, move |seat| seat.reads(key)).map(|(name, _)| name)
    }

    fn key<C: RobustOps>(&self, cx: &C) -> u64 {
        cx.lock_key(&self.gate.owner).get()
    }

    fn is_reading<C: RobustOps>(&self, cx: &C, me: Name) -> bool {
        seat(cx, me).is_some_and(|seat| seat.reads(self.key(cx)))
    }

    /// The reader's fast path; `None` where the gate is taken, or the data need a closer look.
    #[inline]
    fn begin_to_read<C: RobustOps>(&self, cx: &C, me: Name) -> Result<Option<Condition>, Refused> {
        let key = self.key(cx);
        let seat = seat(cx, me).ok_or(Refused::TooManyReads)?;
        let read = seat.read(0).ok_or(Refused::TooManyReads)?;
        if seat.reads(key) {
            // Whoever waits to write waits for this one, which must not wait in turn.
            read.store(key, Ordering::Relaxed);
            return Ok(Some(match self.gate.ownership() {
                Ok(Ownership::Free(found) | Ownership::Held(_, found)) => self.judge(found),
                _ => Condition::CONSISTENT,
            }));
        }
        read.store(key, Ordering::Relaxed);
        reader_barrier(cx); // [R]
        // Acquire: pairs with the Release of the last writer.
        if self.gate.owner.load(Ordering::Acquire) == 0 {
            return Ok(Some(Condition::CONSISTENT));
        }
        self.stop_reading(cx, read);
        Ok(None)
    }

    #[cold]
    fn read_through_the_gate<C: RobustOps>(
        &self,
        cx: &C,
        me: Name,
        until_ns: u64,
    ) -> Result<Condition, Refused> {
        let found = self.gate.acquire_until(cx, me, until_ns)?;
        self.pass_the_gate(cx, me, found)
    }

    /// By the owner of the gate, who wants to read.
    fn pass_the_gate<C: RobustOps>(&self, cx: &C, me: Name, found: Condition) -> Result<Condition, Refused> {
        let condition = self.judge(found);
        let read = seat(cx, me).and_then(|seat| seat.read(0));
        if let Some(read) = read {
            // Relaxed: the release of the gate shows it to the next writer.
            read.store(self.key(cx), Ordering::Relaxed);
        }
        self.give_the_gate_back(cx, me, found)?;
        read.map(|_| condition).ok_or(Refused::TooManyReads)
    }

    /// By its owner, who has not touched the data.
    fn give_the_gate_back<C: RobustOps>(&self, cx: &C, me: Name, found: Condition) -> Result<(), Corrupted> {
        let condition = self.judge(found);
        if found == Condition::CONSISTENT {
            // SAFETY: the caller owns the gate.
            unsafe { self.gate.release(cx, me) }
        } else {
            // SAFETY: as above.
            unsafe { self.gate.release_as(cx, me, condition) }
        }
    }

    /// The condition of the data, for the owner of the gate who found it in that condition.
    fn judge(&self, found: Condition) -> Condition {
        let touched = self.writing.load(Ordering::Acquire) != 0;
        Condition { owner_died: found.owner_died && touched, ..found }
    }

    /// By the writer, which leaves the data in that condition. `writing` stays set where they are suspect of a
    /// death: the next owner of the gate knows by it that this is so.
    fn write_no_more(&self, condition: Condition) {
        if !condition.owner_died {
            self.writing.store(0, Ordering::Release);
        }
    }

    fn begin_to_write(&self, me: Name, found: Condition) -> Result<Condition, Refused> {
        let condition = self.judge(found);
        if condition != found {
            self.gate.amend(me, condition)?;
        }
        // Release: it is seen before the data change.
        self.writing.store(me.bits(), Ordering::Relaxed);
        fence(Ordering::Release);
        Ok(condition)
    }

    #[inline]
    fn stop_reading<C: RobustOps>(&self, cx: &C, read: &AtomicU64) {
        // Release: the reads are over before a writer sees it.
        read.store(0, Ordering::Release);
        reader_barrier(cx); // [D]
        let drain = self.drain.load(Ordering::Relaxed);
        if drain != 0 {
            kick(cx, drain);
        }
    }

    /// By the owner of the gate; whether they were gone in time.
    fn wait_for_readers<C: RobustOps>(&self, cx: &C, me: Name, until_ns: u64) -> bool {
        self.drain.store(me.bits(), Ordering::Relaxed);
        cx.heavy_barrier(); // [R], [D]
        let gone = loop {
            let seen = seat(cx, me).map_or(0, |seat| seat.kicks().load(Ordering::Acquire));
            let Some(reader) = self.readers(cx).find(|&name| name != me) else { break true };
            let now = cx.now_ns();
            if now >= until_ns {
                break false;
            }
            cx.sleep(me, seen, reader, until_ns.min(now.saturating_add(NAP_NS)));
        };
        self.drain.store(0, Ordering::Relaxed);
        gone
    }
}

// SAFETY: 64-bit atomics, 128 bytes together; zero is free.
unsafe impl LockType for RawRobustRw {
    const NAME: &'static str = "robust-rw";

    /// Whether somebody writes, or waits for it.
    fn is_locked(&self) -> bool {
        self.gate.is_locked()
    }

    fn describe(word: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RawRobust::describe(word, f)
    }
}

#[inline]
fn seat<C: RobustOps>(cx: &C, me: Name) -> Option<&Seat> {
    cx.seats().get(me.slot().index())
}

#[inline]
fn reader_barrier<C: RobustOps>(cx: &C) {
    if cx.has_heavy_barrier() { light_barrier() } else { fence(Ordering::SeqCst) }
}

#[cold]
fn kick<C: RobustOps>(cx: &C, writer: u64) {
    if let Some(writer) = Name::from_bits(writer) {
        cx.kick(writer.slot());
    }
}
