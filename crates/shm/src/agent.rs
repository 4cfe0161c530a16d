//! Standing for a domain: one thread that hears what other domains want of this one, and tells them of its deaths.
//!
//! ```text
//!   rung        pending bits  --> bells of those slots            (who was kicked)
//!               who sleeps on the death of one that is dead --> bell
//!   a wish      others' pending bits, this one's alarm  --> ring them   (of threads without a doorbell)
//!   a death     OWNER_DIED in this domain's alive word --> into the segment's;  ring all
//! ```
//! It only forwards. Whoever kicks or dies has changed the words in the segment before; so if the agent dies, nothing is lost but
//! time: its sleepers are woken by its death, and look every millisecond from then on.

use core::cell::Cell;
use core::time::Duration;

use crosslock_core::Name;
use crosslock_core::primitive::{AtomicU32, Ordering};

use crate::alive::is_of_dead;
use crate::error::{Error, Result};
use crate::participant::{incarnation, is_used};
use crate::robust_context::{WAIT_WORDS, wait_for_words};
use crate::segment::{Segment, SegmentContext};

/// The thread that stands for this process's domain, until it is dropped or dies.
#[derive(Debug)]
pub struct Agent<'a> {
    segment: &'a SegmentContext,
    name: Name,
    /// For each slot of the domain the last one whose death was told.
    told: Vec<Cell<u32>>,
}

impl Segment {
    /// Makes the running thread the one that stands for its domain, which is to call [`Agent::watch`] over and over. Another thread
    /// of its process answers the domain's doorbell, with [`Segment::forward`].
    ///
    /// # Errors
    /// [`Error::AgentLives`] where another one does; as [`Segment::register`].
    pub fn stand_for_domain(&self) -> Result<Agent<'_>> {
        let segment = self.context()?;
        let name = segment.me()?;
        let record = &segment.domain_table()[segment.domain()];
        let mut found = record.agent.load(Ordering::Acquire);
        loop {
            if let Some(other) = segment.agent_of(segment.domain()).filter(|&other| other != name) {
                return Err(Error::AgentLives { domain: segment.domain(), agent: other });
            }
            match record.agent.compare_exchange(found, name.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(changed) => found = changed,
            }
        }
        // What came before there was an agent.
        let told = vec![Cell::new(0); segment.slots_of_each()];
        self.forward();
        Ok(Agent { segment, name, told })
    }

    /// Wakes the threads of this domain that others have kicked, or that wait for one that is dead; gives how many.
    ///
    /// To be called by who serves the domain's doorbell, whenever it rings.
    pub fn forward(&self) -> usize {
        self.inner().forward()
    }
}

impl SegmentContext {
    fn forward(&self) -> usize {
        let slots = self.slots_of_each();
        let kicked = self.domain_table()[self.domain()].take_pending(slots);
        let mut woken = 0;
        for slot in kicked.filter_map(|index| self.slots_of(self.domain()).nth(index)) {
            self.wake_near(slot);
            woken += 1;
        }
        woken + self.wake_bereft()
    }

    /// Wakes the threads of this domain that wait for one that is dead, where the kernel does not: the dead one is of another domain, or
    /// they sleep on bells.
    fn wake_bereft(&self) -> usize {
        let mut woken = 0;
        for slot in self.slots_of(self.domain()) {
            let seat = &self.seat_table()[slot.index()];
            let watched = seat.watched().filter(|_| seat.key() != 0);
            let is_unheard = |name: &Name| !self.is_near(name.slot()) || self.vector_of(slot) != 0;
            if watched.filter(is_unheard).is_some_and(|name| self.has_died(name)) {
                self.wake_near(slot);
                woken += 1;
            }
        }
        woken
    }
}

impl Agent<'_> {
    /// Sleeps until a thread of this domain dies or registers, or for so long; tells the other domains of deaths. Gives how many
    /// there were.
    pub fn watch(&self, longest: Duration) -> usize {
        let cx = self.segment;
        let changes = cx.changes();
        let seen = changes.load(Ordering::Acquire);
        cx.relay();
        let told = self.tell();
        if told > 0 {
            return told;
        }
        let mut words: Vec<(&AtomicU32, u32)> = vec![(changes, seen)];
        for slot in cx.slots_of(cx.domain()) {
            let lives = cx.holder_of(slot).is_some();
            let word = cx.alive_word(slot).filter(|_| lives);
            let value = word.map_or(0, |word| word.load(Ordering::Acquire));
            words.extend(word.filter(|_| !is_of_dead(value)).map(|word| (word, value)));
        }
        // More than the kernel takes: then it looks often.
        let longest = if words.len() > WAIT_WORDS { longest.min(Duration::from_millis(1)) } else { longest };
        words.truncate(WAIT_WORDS);
        wait_for_words(&words, longest);
        cx.relay();
        if cx.domain_table()[cx.domain()].has_pending() {
            // Of a process here that has no bells.
            cx.forward();
        }
        self.tell()
    }

    /// Tells the other domains of the deaths that they cannot know of.
    fn tell(&self) -> usize {
        let (cx, mut told) = (self.segment, 0);
        for (slot, last) in cx.slots_of(cx.domain()).zip(&self.told) {
            let state = cx.records()[slot.index()].state.load(Ordering::Acquire);
            let is_dead = is_used(state)
                && cx.alive_word(slot).is_some_and(|word| is_of_dead(word.load(Ordering::Acquire)));
            if is_dead && last.replace(incarnation(state)) != incarnation(state) {
                cx.publish_death(slot);
                told += 1;
            }
        }
        if told > 0 {
            cx.ring_all();
            cx.wake_bereft();
        }
        told
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let record = &self.segment.domain_table()[self.segment.domain()];
        // Another stands for it already if it was taken for dead.
        let _ = record.agent.compare_exchange(self.name.bits(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}
