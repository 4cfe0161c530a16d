//! Waiting: who sits where, who is next, and who sleeps on whom.
//!
//! Who watches the right one:
//! - **A waiter that is not the head** watches the nearest one before it. That one, when it leaves, looks for those who
//!   watch it [W]: the new owner arms the next one on its behalf (the next one watches the new owner already, and
//!   sleeps on) and kicks any other. When it dies, the kernel wakes them.
//! - **The head** asks for attention, then looks at the owner word once more [S], and watches the one that is in it.
//!   Whoever that is, its release comes after the look, so it sees the request and kicks.
//! - **Somebody who joins** with a lower ticket than one who sits there already (two who joined at once) kicks that
//!   one [J], which then finds it.
//!
//! So each sleep ends by a kick, or by the death of the one who would have kicked. That it also ends after some time
//! is a net for those who are alive but stopped.

use super::seat::living;
use super::word::{Attention, Wish};
use super::{Look, Manners, NAP_NS, Name, Ownership, RawRobust, Refused, RobustOps, Seat, patience};
use crate::Condition;
use crate::event::Event;
use crate::per_cpu::CpuId;
use crate::primitive::{Ordering, fence};

/// A lock that has been taken again between two looks, so many times in a row, is *hot*: hardly ever free, but not idle
/// either. It is so at once if it has been taken that often for each turn in between.
const HOT: u64 = 4;
const HOT_NAP_NS: u64 = 50_000;

/// Who waits without a seat is not kicked.
const SEATLESS_NAP_NS: u64 = 1_000_000;

impl RawRobust {
    #[cold]
    pub(super) fn acquire_slowly<C: RobustOps>(
        &self,
        cx: &C,
        me: Name,
        until_ns: u64,
    ) -> Result<Condition, Refused> {
        if let Spun::Taken(condition) = self.spin(cx, me, Manners::Polite, false)? {
            return Ok(condition);
        }
        let since_ns = cx.now_ns();
        let condition = match Waiter::sit_down(self, cx, me, since_ns) {
            Some(waiter) => waiter.wait(until_ns),
            None => self.wait_without_seat(cx, me, until_ns),
        }?;
        self.count_wait(cx, since_ns);
        Ok(condition)
    }

    /// Looks a few times whether the lock can be had, each time after twice the time: who looks often takes the word
    /// from the cache of the owner, who needs it. Ends early, but not for who is `wanted`, if there is no hope.
    fn spin<C: RobustOps>(&self, cx: &C, me: Name, manners: Manners, wanted: bool) -> Result<Spun, Refused> {
        let (mut heat, mut last) = (0, self.acquisitions());
        for round in 0..cx.spin_rounds() {
            // First, for the owner may be dead.
            if let Look::Taken(condition) = self.look(cx, me, manners)? {
                return Ok(Spun::Taken(condition));
            }
            if heat >= HOT && !wanted {
                break;
            }
            let turns = 2_u32 << round;
            if round >= 3 && matches!(self.ownership(), Ok(Ownership::Reserved(_))) {
                // The one it is for is awake, or so it seems, and needs a CPU.
                cx.yield_now();
            } else {
                (0..turns).for_each(|_| cx.relax());
            }
            let now = self.acquisitions();
            if now != last {
                heat += (now.wrapping_sub(last) / u64::from(turns)).max(1);
            }
            last = now;
        }
        Ok(match self.look(cx, me, manners)? {
            Look::Taken(condition) => Spun::Taken(condition),
            Look::Busy(name) => Spun::Busy(name, heat >= HOT),
        })
    }

    /// For a wait inside another one of the same participant, in a signal handler.
    fn wait_without_seat<C: RobustOps>(&self, cx: &C, me: Name, until_ns: u64) -> Result<Condition, Refused> {
        cx.count(Event::LockNoNode, 1);
        let kicks = |seat: &Seat| seat.kicks().load(Ordering::Relaxed);
        loop {
            let seen = cx.seats().get(me.slot().index()).map_or(0, kicks);
            let watched = match self.look(cx, me, Manners::Rude)? {
                Look::Taken(condition) => return Ok(condition),
                Look::Busy(name) => name,
            };
            let now = cx.now_ns();
            if now >= until_ns {
                return Err(Refused::TimedOut);
            }
            cx.sleep(me, seen, watched, until_ns.min(now.saturating_add(SEATLESS_NAP_NS)));
        }
    }

    /// The lock's key in the seats.
    pub fn key<C: RobustOps>(&self, cx: &C) -> u64 {
        cx.lock_key(&self.owner).get()
    }

    /// Those who wait for this lock and live, with their seats.
    fn waiting<'a, C: RobustOps>(&self, cx: &'a C) -> impl Iterator<Item = (Name, &'a Seat)> {
        let key = self.key(cx);
        living(cx, move |seat| seat.key() == key)
    }

    /// Whether that one waits for this lock, and lives.
    pub(super) fn is_waiting<C: RobustOps>(&self, cx: &C, slot: CpuId) -> bool {
        let key = self.key(cx);
        cx.seats().get(slot.index()).is_some_and(|seat| seat.key() == key)
            && cx.name_of(slot).is_some_and(|name| !cx.is_dead(name))
    }

    /// The head of the queue.
    pub(super) fn first<C: RobustOps>(&self, cx: &C) -> Option<CpuId> {
        self.waiting(cx).min_by_key(|(_, seat)| seat.ticket()).map(|(name, _)| name.slot())
    }

    pub(super) fn kick_all<C: RobustOps>(&self, cx: &C) {
        self.waiting(cx).for_each(|(name, _)| cx.kick(name.slot()));
    }
}

/// How a spin ended.
enum Spun {
    Taken(Condition),
    /// That one has it, or is to have it; and whether it is hot.
    Busy(Name, bool),
}

/// How a head fared.
enum Turn {
    Taken(Condition),
    /// That one has the lock; so many nanoseconds may it sleep.
    Asked(Name, u64),
    /// Somebody else asked for attention, who may be the head.
    Again,
}

/// One who sits.
struct Waiter<'a, C> {
    lock: &'a RawRobust,
    cx: &'a C,
    me: Name,
    seat: &'a Seat,
    ticket: u64,
    since_ns: u64,
}

impl<'a, C: RobustOps> Waiter<'a, C> {
    /// `None` where the participant sits already.
    fn sit_down(lock: &'a RawRobust, cx: &'a C, me: Name, since_ns: u64) -> Option<Self> {
        let seat = cx.seats().get(me.slot().index())?;
        if seat.key.load(Ordering::Relaxed) != 0 {
            return None;
        }
        // Relaxed: who is before whom follows from the number, and a seat is seen as a whole by its key.
        let ticket = lock.tickets.fetch_add(1, Ordering::Relaxed);
        seat.since_ns.store(since_ns, Ordering::Relaxed);
        let waiter = Self { lock, cx, me, seat, ticket, since_ns };
        waiter.sit();
        cx.count(Event::LockSlowpath, 1);
        fence(Ordering::SeqCst); // [J]
        lock.waiting(cx)
            .filter(|(name, seat)| *name != me && seat.ticket() > ticket)
            .for_each(|(name, _)| cx.kick(name.slot()));
        Some(waiter)
    }

    fn sit(&self) {
        self.seat.watches.store(0, Ordering::Relaxed);
        self.seat.ticket.store(self.ticket, Ordering::Relaxed);
        self.seat.key.store(self.lock.key(self.cx), Ordering::Release);
    }

    fn wait(self, until_ns: u64) -> Result<Condition, Refused> {
        let Self { lock, cx, me, seat, .. } = self;
        let mut patient_until = None;
        let mut impatient = false;
        loop {
            let seen = seat.kicks().load(Ordering::Acquire);
            if seat.ticket() != self.ticket || seat.key() != self.lock.key(cx) {
                // A peer wrote garbage over the seat.
                self.sit();
            }
            let mut nap = NAP_NS;
            let ahead = self.ahead();
            let watched = if let Some((name, ticket)) = ahead {
                patient_until = None;
                seat.watches.store(name.bits(), Ordering::Relaxed);
                fence(Ordering::SeqCst); // [W]
                if !self.still_sits(name, ticket) {
                    continue;
                }
                if impatient
                    && let Look::Taken(condition) =
                        lock.look(cx, me, Manners::Rude).inspect_err(|_| self.get_up())?
                {
                    self.get_up_as_owner();
                    return Ok(condition);
                }
                name
            } else {
                let deadline = *patient_until.get_or_insert_with(|| patience(cx, self.since_ns));
                match self.compete(deadline, seen).inspect_err(|_| self.get_up())? {
                    Turn::Taken(condition) => {
                        self.get_up_as_owner();
                        return Ok(condition);
                    }
                    Turn::Asked(owner, nap_ns) => {
                        nap = nap_ns;
                        owner
                    }
                    Turn::Again => continue,
                }
            };
            let now = cx.now_ns();
            if now >= until_ns {
                return self.give_up();
            }
            let nap_end = until_ns.min(now.saturating_add(nap));
            cx.count(if ahead.is_some() { Event::PvWaitNode } else { Event::PvWaitHead }, 1);
            cx.sleep(me, seen, watched, nap_end);
            // Not kicked for so long: the head may be stopped. Then look, whosever turn it is.
            impatient = seat.kicks().load(Ordering::Relaxed) == seen && cx.now_ns() >= nap_end;
            if impatient {
                cx.count(Event::PvSpuriousWakeup, 1);
            }
        }
    }

    /// The nearest one before, and its ticket.
    fn ahead(&self) -> Option<(Name, u64)> {
        let before = self.lock.waiting(self.cx).map(|(name, seat)| (name, seat.ticket()));
        before.filter(|&(_, ticket)| ticket < self.ticket).max_by_key(|&(_, ticket)| ticket)
    }

    fn still_sits(&self, name: Name, ticket: u64) -> bool {
        let same = |seat: &Seat| seat.key() == self.lock.key(self.cx) && seat.ticket() == ticket;
        self.cx.seats().get(name.slot().index()).is_some_and(same)
    }

    /// The head's part: tries to take the lock; if it cannot, asks to be kicked.
    fn compete(&self, patient_until: u64, seen: u32) -> Result<Turn, Refused> {
        let Self { lock, cx, me, seat, .. } = *self;
        let now = cx.now_ns();
        lock.notice_owner(now);
        let is_patient = now < patient_until;
        if !is_patient && !self.ask(Wish::Reserve, me.slot(), seen) {
            return Ok(Turn::Again);
        }
        let (owner, is_hot) = loop {
            match lock.spin(cx, me, Manners::Rude, !is_patient)? {
                Spun::Taken(condition) => return Ok(Turn::Taken(condition)),
                Spun::Busy(..)
                    if !is_patient && cx.now_ns() < now.saturating_add(cx.spin_when_wanted_ns()) => {}
                Spun::Busy(owner, is_hot) => break (owner, is_hot),
            }
        };
        let nap_ns = if is_patient { patient_until.saturating_sub(now) } else { NAP_NS };
        if is_patient && is_hot {
            // It need not be kicked as long as others take the lock all the time: it costs them more than it gains.
            seat.watches.store(owner.bits(), Ordering::Relaxed);
            return Ok(Turn::Asked(owner, nap_ns.min(HOT_NAP_NS)));
        }
        let wish = if is_patient { Wish::Kick } else { Wish::ReserveAndKick };
        if !self.ask(wish, me.slot(), seen) {
            return Ok(Turn::Again);
        }
        // [S], also for those who release; not yet if the nap is short.
        if is_patient && cx.has_heavy_barrier() {
            fence(Ordering::SeqCst);
        } else {
            cx.heavy_barrier();
        }
        Ok(match lock.look(cx, me, Manners::Rude)? {
            Look::Taken(condition) => Turn::Taken(condition),
            Look::Busy(owner) => {
                seat.watches.store(owner.bits(), Ordering::Relaxed);
                Turn::Asked(owner, nap_ns)
            }
        })
    }

    /// Sets the attention; who was named there before is kicked, and will see whether it is the head. Gives whether it
    /// could: if not, somebody else has asked meanwhile, who may be the head.
    #[must_use]
    fn ask(&self, wish: Wish, waiter: CpuId, kicks: u32) -> bool {
        let wanted = Attention { wish, waiter, kicks }.encode();
        let word = self.lock.attention.load(Ordering::Acquire);
        let displaced = Attention::decode(word).map(|said| said.waiter);
        if let Some(displaced) = displaced.filter(|&slot| slot != waiter && slot != self.me.slot()) {
            // Before, so that a crash in between leaves the request; should it ask again, that is another word.
            self.cx.kick(displaced);
        }
        word == wanted || self.lock.replace_attention(word, wanted)
    }

    /// Takes back what this one has asked for.
    fn ask_no_more(&self) {
        loop {
            let word = self.lock.attention.load(Ordering::Acquire);
            let mine = Attention::decode(word).is_some_and(|said| said.waiter == self.me.slot());
            if !mine || self.lock.replace_attention(word, 0) {
                return;
            }
        }
    }

    /// The owner leaves the queue: the next one sleeps on, for it watches the right one already.
    fn get_up_as_owner(&self) {
        let Self { lock, cx, me, .. } = *self;
        self.seat.key.store(0, Ordering::Release);
        fence(Ordering::SeqCst); // [W]
        let watches_me = |seat: &Seat| seat.watches.load(Ordering::Relaxed) == me.bits();
        let next = lock.waiting(cx).min_by_key(|(_, seat)| seat.ticket());
        let next = next.filter(|(_, seat)| watches_me(seat));
        // If somebody asks at the same moment, the next one is kicked like all who watch this one.
        let next = next
            .filter(|(name, seat)| self.ask(Wish::Kick, name.slot(), seat.kicks().load(Ordering::Relaxed)));
        if next.is_none() {
            self.ask_no_more();
        }
        self.kick_watchers(next.map(|(name, _)| name));
    }

    /// Leaves the queue without the lock.
    fn get_up(&self) {
        self.seat.key.store(0, Ordering::Release);
        fence(Ordering::SeqCst); // [W]
        self.ask_no_more();
        self.kick_watchers(None);
    }

    fn kick_watchers(&self, except: Option<Name>) {
        let me = self.me.bits();
        self.lock
            .waiting(self.cx)
            .filter(|(name, seat)| Some(*name) != except && seat.watches.load(Ordering::Relaxed) == me)
            .for_each(|(name, _)| self.cx.kick(name.slot()));
    }

    /// The time is over. What came in the last moment is taken all the same.
    fn give_up(&self) -> Result<Condition, Refused> {
        let Self { lock, cx, me, .. } = *self;
        self.seat.key.store(0, Ordering::Release);
        fence(Ordering::SeqCst); // [W]
        self.ask_no_more();
        let look = lock.look(cx, me, Manners::Rude);
        self.kick_watchers(None);
        match look? {
            Look::Taken(condition) => Ok(condition),
            Look::Busy(_) => Err(Refused::TimedOut),
        }
    }
}
