//! The words of a robust lock: what they can say, and nothing else.
//!
//! ```text
//! owner      63                     32 31         18 17    14 13         0
//!           +-------------------------+-------------+--------+------------+
//!           |       incarnation       |    check    | flags  |  slot + 1  |
//!           +-------------------------+-------------+--------+------------+
//! attention  63                    31 30   28 27        14 13         0
//!           +------------------------+-------+------------+------------+
//!           |            0           | kind  | claimer + 1| waiter + 1 |
//!           +------------------------+-------+------------+------------+
//! ```
//! `check` is a hash of slot and incarnation: bytes that somebody has overwritten rarely look like a name.

use core::fmt;

use crate::error::Corrupted;
use crate::per_cpu::CpuId;

const SLOT_BITS: u32 = 14;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const FLAGS_MASK: u64 = 0xf << SLOT_BITS;
const CHECK_SHIFT: u32 = 18;
const INCARNATION_SHIFT: u32 = 32;

/// The last owner died inside.
const DIED: u64 = 1 << 14;
/// The last owner panicked inside.
const POISONED: u64 = 1 << 15;
/// Free; but whose name it is comes first.
const RESERVED: u64 = 1 << 16;
/// The data are given up: nobody may own the lock any more.
const LOST: u64 = 1 << 17;

/// Who a participant is: slot and incarnation. A slot that is given to another has another name, so a name never
/// means anybody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(u64);

impl Name {
    /// The name of incarnation `incarnation` of the participant in `slot`.
    ///
    /// ```
    /// use crosslock_core::{CpuId, Name};
    /// let slot = CpuId::new(3).unwrap();
    /// assert_ne!(Name::new(slot, 1), Name::new(slot, 2));
    /// ```
    #[must_use]
    pub const fn new(slot: CpuId, incarnation: u32) -> Self {
        let slot = slot.index() as u64 + 1;
        let high = (incarnation as u64) << INCARNATION_SHIFT;
        // Fibonacci hashing: the high bits of the product are well mixed.
        let check = (high | slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOT_BITS);
        Self(high | check << CHECK_SHIFT | slot)
    }

    /// The name that these bits are, if they are one.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let slot = (bits & SLOT_MASK) as usize;
        let incarnation = (bits >> INCARNATION_SHIFT) as u32;
        match CpuId::new(slot.wrapping_sub(1)) {
            Some(slot) if Self::new(slot, incarnation).0 == bits => Some(Self(bits)),
            _ => None,
        }
    }

    /// The 64 bits: never 0, and without any flag.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The participant's slot.
    #[must_use]
    pub const fn slot(self) -> CpuId {
        match CpuId::new((self.0 & SLOT_MASK) as usize - 1) {
            Some(slot) => slot,
            None => unreachable!(),
        }
    }

    /// How often the slot had been given to somebody, when it got this name.
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        (self.0 >> INCARNATION_SHIFT) as u32
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.slot().index(), self.incarnation())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "participant {} (incarnation {})", self.slot().index(), self.incarnation())
    }
}

/// In what state the data are, as the owner word carries it from one owner to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// An owner died inside, and nobody has marked the data consistent since.
    pub owner_died: bool,
    /// An owner panicked inside, and nobody has marked the data consistent since.
    pub poisoned: bool,
}

impl Condition {
    /// Nothing has happened.
    pub const CONSISTENT: Self = Self { owner_died: false, poisoned: false };

    /// Whether nothing has happened.
    #[must_use]
    pub const fn is_consistent(self) -> bool {
        !self.owner_died && !self.poisoned
    }

    /// With an owner's death added.
    pub(crate) const fn after_death(self) -> Self {
        Self { owner_died: true, ..self }
    }

    pub(crate) const fn bits(self) -> u64 {
        (if self.owner_died { DIED } else { 0 }) | (if self.poisoned { POISONED } else { 0 })
    }

    const fn of(word: u64) -> Self {
        Self { owner_died: word & DIED != 0, poisoned: word & POISONED != 0 }
    }
}

/// What an owner word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody owns the lock.
    Free(Condition),
    /// Nobody owns the lock, and the one named is to have it next.
    Reserved(Name),
    /// The one named owns the lock.
    Held(Name, Condition),
    /// The data are given up: an owner that was told of a death left without marking them consistent.
    Lost,
}

impl Ownership {
    /// What `word` says.
    ///
    /// # Errors
    /// [`Corrupted::NoSuchOwner`] where no correct participant writes such a word.
    pub const fn decode(word: u64) -> Result<Self, Corrupted> {
        const CONDITION: u64 = DIED | POISONED;

        let condition = Condition::of(word);
        match (word & FLAGS_MASK & !CONDITION, Name::from_bits(word & !FLAGS_MASK)) {
            (0, None) if word & !CONDITION == 0 => Ok(Self::Free(condition)),
            (0, Some(name)) => Ok(Self::Held(name, condition)),
            (RESERVED, Some(name)) if condition.is_consistent() => Ok(Self::Reserved(name)),
            (LOST, None) if word == LOST => Ok(Self::Lost),
            _ => Err(Corrupted::NoSuchOwner { word }),
        }
    }

    /// The word that says this.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::Free(condition) => condition.bits(),
            Self::Reserved(name) => name.0 | RESERVED,
            Self::Held(name, condition) => name.0 | condition.bits(),
            Self::Lost => LOST,
        }
    }
}

impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |condition: &Condition| match (condition.owner_died, condition.poisoned) {
            (false, false) => "",
            (true, false) => ", an owner died inside",
            (false, true) => ", an owner panicked inside",
            (true, true) => ", owners died and panicked inside",
        };
        match self {
            Self::Free(condition) => write!(f, "free{}", state(condition)),
            Self::Reserved(name) => write!(f, "free, {name} comes first"),
            Self::Held(name, condition) => write!(f, "held by {name}{}", state(condition)),
            Self::Lost => f.write_str("not recoverable"),
        }
    }
}

/// Whom the next release is to look after. Slots only: who sleeps is found in his seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    Nobody,
    /// That waiter sleeps: it is to be kicked.
    Sleeps(CpuId),
    /// That waiter has waited long enough: the lock is to be reserved for it.
    Wants(CpuId),
    /// The same, and it sleeps.
    WantsAsleep(CpuId),
    /// The second is about to kick the first.
    Claimed(CpuId, CpuId),
    /// What nobody writes.
    Garbage,
}

const SLEEPS: u64 = 1;
const WANTS: u64 = 2;
const CLAIMED: u64 = 3;
const WANTS_ASLEEP: u64 = 4;
const KIND_SHIFT: u32 = 28;
const KIND_MASK: u64 = 7;

impl Attention {
    pub(crate) const fn encode(self) -> u64 {
        const fn slot(slot: CpuId) -> u64 {
            slot.index() as u64 + 1
        }
        match self {
            Self::Nobody | Self::Garbage => 0,
            Self::Sleeps(waiter) => SLEEPS << KIND_SHIFT | slot(waiter),
            Self::Wants(waiter) => WANTS << KIND_SHIFT | slot(waiter),
            Self::WantsAsleep(waiter) => WANTS_ASLEEP << KIND_SHIFT | slot(waiter),
            Self::Claimed(waiter, by) => CLAIMED << KIND_SHIFT | slot(by) << SLOT_BITS | slot(waiter),
        }
    }

    pub(crate) const fn decode(word: u64) -> Self {
        const fn slot(bits: u64) -> Option<CpuId> {
            CpuId::new(((bits & SLOT_MASK) as usize).wrapping_sub(1))
        }
        let said = match (word >> KIND_SHIFT & KIND_MASK, slot(word), slot(word >> SLOT_BITS)) {
            (0, None, None) => Self::Nobody,
            (SLEEPS, Some(waiter), None) => Self::Sleeps(waiter),
            (WANTS, Some(waiter), None) => Self::Wants(waiter),
            (WANTS_ASLEEP, Some(waiter), None) => Self::WantsAsleep(waiter),
            (CLAIMED, Some(waiter), Some(by)) => Self::Claimed(waiter, by),
            _ => Self::Garbage,
        };
        if said.encode() == word { said } else { Self::Garbage }
    }

    /// Whom it is about.
    pub(crate) const fn waiter(self) -> Option<CpuId> {
        match self {
            Self::Sleeps(waiter)
            | Self::Wants(waiter)
            | Self::WantsAsleep(waiter)
            | Self::Claimed(waiter, _) => Some(waiter),
            Self::Nobody | Self::Garbage => None,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn names() -> impl Iterator<Item = Name> {
        let slots = [0, 1, 2, 77, CpuId::MAX.index()].map(|slot| CpuId::new(slot).unwrap());
        slots.into_iter().flat_map(|slot| [1, 2, 0x7fff_ffff, u32::MAX].map(|inc| Name::new(slot, inc)))
    }

    fn conditions() -> [Condition; 4] {
        [(false, false), (true, false), (false, true), (true, true)]
            .map(|(owner_died, poisoned)| Condition { owner_died, poisoned })
    }

    #[test]
    fn owner_words_survive_the_round_trip() {
        let held = names().flat_map(|name| conditions().map(|condition| Ownership::Held(name, condition)));
        let free = conditions().map(Ownership::Free);
        for said in held.chain(names().map(Ownership::Reserved)).chain(free).chain([Ownership::Lost]) {
            assert_eq!(Ownership::decode(said.encode()), Ok(said));
        }
        assert_eq!(Ownership::Free(Condition::CONSISTENT).encode(), 0);
    }

    #[test]
    fn attention_survives_the_round_trip() {
        for name in names() {
            let slot = name.slot();
            let said = [Attention::Sleeps, Attention::Wants, Attention::WantsAsleep].map(|kind| kind(slot));
            for said in said.into_iter().chain([Attention::Claimed(slot, slot)]) {
                assert_eq!(Attention::decode(said.encode()), said);
            }
        }
        assert_eq!(Attention::decode(0), Attention::Nobody);
        for garbage in [1, 1 << 28, 5 << 28 | 1, 1 << 31, u64::MAX, 1 << 32] {
            assert_eq!(Attention::decode(garbage), Attention::Garbage);
        }
    }

    #[test]
    fn one_wrong_bit_in_a_name_is_seen() {
        for name in names() {
            for bit in (0..64).filter(|bit| FLAGS_MASK >> bit & 1 == 0) {
                assert_eq!(Name::from_bits(name.bits() ^ 1 << bit), None, "{name}, bit {bit}");
            }
        }
    }
}
