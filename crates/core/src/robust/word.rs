//! The words of a robust lock: what they can say, and nothing else.
//!
//! ```text
//! owner      63                     32 31         18 17    14 13         0
//!           +-------------------------+-------------+--------+------------+
//!           |       incarnation       |    check    | flags  |  slot + 1  |
//!           +-------------------------+-------------+--------+------------+
//! attention  63                     32 31    29 28        14 13         0
//!           +-------------------------+--------+------------+------------+
//!           | the waiter's kicks then |  wish  |     0      | waiter + 1 |
//!           +-------------------------+--------+------------+------------+
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

/// Whom the next release is to look after, and how.
///
/// A request carries how often the waiter had been kicked when it was made. Whoever answers it kicks first, so a later
/// request of the same waiter is another word, and is not mistaken for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attention {
    pub(crate) wish: Wish,
    pub(crate) waiter: CpuId,
    pub(crate) kicks: u32,
}

/// What a waiter asks of the next release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Wish {
    /// It sleeps: it is to be kicked.
    Kick = 1,
    /// It has waited long enough, and spins: the lock is to be reserved for it.
    Reserve = 2,
    /// Both.
    ReserveAndKick = 3,
    /// It has been kicked. If it does not come in time, the lock is to be reserved for it.
    Kicked = 4,
}

/// Whether the wish of an attention word is [`Wish::Kicked`].
#[inline]
pub(crate) const fn is_kicked(attention: u64) -> bool {
    attention >> WISH_SHIFT & WISH_MASK == Wish::Kicked as u64
}

const WISH_SHIFT: u32 = 29;
const WISH_MASK: u64 = 7;
const KICKS_SHIFT: u32 = 32;

impl Attention {
    pub(crate) const fn encode(self) -> u64 {
        let waiter = self.waiter.index() as u64 + 1;
        (self.kicks as u64) << KICKS_SHIFT | (self.wish as u64) << WISH_SHIFT | waiter
    }

    /// `None` for what nobody writes, and for 0, which asks for nothing.
    pub(crate) const fn decode(word: u64) -> Option<Self> {
        let wish = match word >> WISH_SHIFT & WISH_MASK {
            1 => Wish::Kick,
            2 => Wish::Reserve,
            3 => Wish::ReserveAndKick,
            4 => Wish::Kicked,
            _ => return None,
        };
        let kicks = (word >> KICKS_SHIFT) as u32;
        match CpuId::new(((word & SLOT_MASK) as usize).wrapping_sub(1)) {
            Some(waiter) => {
                let said = Self { wish, waiter, kicks };
                if said.encode() == word { Some(said) } else { None }
            }
            None => None,
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
        for waiter in names().map(Name::slot) {
            for wish in [Wish::Kick, Wish::Reserve, Wish::ReserveAndKick] {
                for kicks in [0, 1, u32::MAX] {
                    let said = Attention { wish, waiter, kicks };
                    assert_eq!(Attention::decode(said.encode()), Some(said));
                }
            }
        }
        for nothing in [0, 1, 1 << 28, 1 << 29, 1 << 31 | 1 << 29 | 1, u64::MAX, 1 << 32] {
            assert_eq!(Attention::decode(nothing), None);
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
