//! Sequence numbers as they stand in shared words: 30 bits that wrap.
//!
//! Everybody counts locally in 64 bits, which never wrap, and only the low 30 bits travel. Two numbers are
//! compared by their distance, so a comparison is right as long as ranks are less than 2^29 steps apart;
//! the protocol keeps them within a handful.

/// The number of bits of a sequence number in a shared word.
pub const BITS: u32 = 30;
const MASK: u32 = (1 << BITS) - 1;
const HALF: u32 = 1 << (BITS - 1);

/// The low 30 bits of a local 64-bit count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence(u32);

impl Sequence {
    /// The sequence number of a local count.
    #[inline]
    pub const fn of(count: u64) -> Self {
        Sequence(count as u32 & MASK)
    }

    /// The sequence number in the low bits of a shared word.
    #[inline]
    pub const fn in_word(word: u32) -> Self {
        Sequence(word & MASK)
    }

    /// The 30 bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether a writer that is at `self` has reached `target`.
    #[inline]
    pub const fn has_reached(self, target: Sequence) -> bool {
        self.0.wrapping_sub(target.0) & MASK < HALF
    }

    /// The 64-bit count that this number stands for, given one that is less than 2^29 away from it.
    ///
    /// Whatever a peer wrote, the result lies within 2^29 of `near`.
    #[inline]
    pub const fn near(self, near: u64) -> u64 {
        let ahead = self.0.wrapping_sub(near as u32) & MASK;
        if ahead < HALF {
            near.wrapping_add(ahead as u64)
        } else {
            near.saturating_sub(((MASK + 1) - ahead) as u64)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn comparison_survives_the_wrap() {
        let before = Sequence::of((1 << BITS) - 2);
        let after = Sequence::of((1 << BITS) + 3);
        assert!(after.has_reached(before));
        assert!(after.has_reached(after));
        assert!(!before.has_reached(after));
    }

    #[test]
    fn a_count_is_recovered_from_a_near_one() {
        for count in [0u64, 1, 77, (1 << 30) - 1, 1 << 30, (1 << 40) + 12345] {
            for offset in [0u64, 1, 3, 1000] {
                assert_eq!(Sequence::of(count + offset).near(count), count + offset);
                assert_eq!(Sequence::of(count).near(count + offset), count);
            }
        }
    }

    #[test]
    fn garbage_stays_near_and_never_overflows() {
        for word in [0u32, 1, u32::MAX, 0x1234_5678, 1 << 29, (1 << 29) - 1] {
            for near in [0u64, 5, 1 << 29, 1 << 45] {
                let count = Sequence::in_word(word).near(near);
                assert!(count.abs_diff(near) <= 1 << 29, "{count} is far from {near}");
            }
        }
    }
}
