//! A generator of random numbers that costs a nanosecond.

/// Xorshift: G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
#[derive(Debug)]
pub(crate) struct Prng(u64);

impl Default for Prng {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl Prng {
    /// One of many generators that have nothing to do with each other.
    pub(crate) fn seeded(seed: u64) -> Self {
        // Spread over all bits, since neighbours begin alike; odd, since 0 stays 0 for ever.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[inline]
    pub(crate) fn step(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0, and small: the numbers are not quite equally likely.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.step() % limit
    }

    /// 0 to `count` - 1 in random order.
    pub(crate) fn permutation(&mut self, count: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count).collect();
        // Fisher and Yates.
        for end in (1..order.len()).rev() {
            let other = usize::try_from(self.below(end as u64 + 1));
            order.swap(end, other.expect("is at most `end`"));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_each_once_and_not_in_order() {
        let order = Prng::seeded(7).permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(order, sorted);
    }
}
