//! How values are quantised, in which arithmetic, and from how many bytes on that is worth it.

use crate::dtype::DType;
use crate::error::Error;

/// In what values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantLevel {
    /// As they are.
    Fp,
    /// Integers of 8 bits: 1.88 times less traffic.
    Int8,
    /// Integers of 6 bits: 2.46 times less.
    Int6,
    /// Integers of 4 bits: 3.56 times less.
    Int4,
}

/// In what values are scaled and added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// In the type itself: each operation is rounded to its 16 bits. As the field's quick all-reduce does it.
    #[default]
    Narrow,
    /// In f32; rounded when the sum is complete. Unquantised, that is the sum of every other all-reduce here.
    Wide,
}

const MIB: usize = 1 << 20;

impl QuantLevel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fp, Self::Int8, Self::Int6, Self::Int4];

    /// By the number that callers of other all-reduces use.
    ///
    /// # Errors
    ///
    /// [`Error::Level`] unless it is 0, 1, 2 or 3.
    pub fn from_number(number: i64) -> Result<Self, Error> {
        let level = usize::try_from(number).ok().and_then(|number| Self::ALL.get(number).copied());
        level.ok_or(Error::Level { found: number })
    }

    /// Bits of an integer; 16 where there are none.
    pub fn bits(self) -> u32 {
        match self {
            Self::Fp => 16,
            Self::Int8 => 8,
            Self::Int6 => 6,
            Self::Int4 => 4,
        }
    }

    /// Bytes from which on the quick all-reduce is ahead of the others: measured by the field on MI300X for 2, 4 and 8 ranks; the
    /// numbers between take those of the next. A bf16 that travels as f16 counts as f16.
    pub fn worth_from(self, world: usize, dtype: DType) -> usize {
        let of_levels = match (dtype, world) {
            (DType::BF16, ..=2) => [2, 8, 8, 8],
            (DType::BF16, 3..=4) => [8, 64, 64, 16],
            (DType::BF16, _) => [16, 2048, 2048, 2048],
            (_, ..=2) => [1, 2, 2, 1],
            (_, 3..=4) => [1, 16, 4, 2],
            (_, _) => [16, 4, 4, 2],
        };
        of_levels[self as usize] * MIB
    }

    /// As it stands in the kernels' names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fp => "fp",
            Self::Int8 => "int8",
            Self::Int6 => "int6",
            Self::Int4 => "int4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_levels_and_others_are_refused() {
        assert_eq!(
            (0..4).map(|n| QuantLevel::from_number(n).unwrap().bits()).collect::<Vec<_>>(),
            [16, 8, 6, 4]
        );
        for found in [-1, 4, i64::MAX] {
            assert_eq!(QuantLevel::from_number(found), Err(Error::Level { found }));
        }
    }

    #[test]
    fn what_is_worth_it_depends_on_world_and_type() {
        assert_eq!(QuantLevel::Int6.worth_from(2, DType::F16), 2 * MIB);
        assert_eq!(QuantLevel::Int8.worth_from(3, DType::F16), 16 * MIB);
        assert_eq!(QuantLevel::Int4.worth_from(4, DType::BF16), 16 * MIB);
        assert_eq!(QuantLevel::Int4.worth_from(5, DType::BF16), 2048 * MIB);
        assert_eq!(QuantLevel::Fp.worth_from(8, DType::F16), 16 * MIB);
    }
}
