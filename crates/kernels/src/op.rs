//! The operations by which values of several ranks become one.
//!
//! The library and the C and Python interfaces name an operation with a [`ReduceOp`]. The one invariant that
//! matters: the codes are part of what ranks tell each other, so a code never changes its meaning.

use std::fmt;
use std::str::FromStr;

use crate::dtype::DType;

/// How values are folded into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReduceOp {
    /// The sum, from source 0 upward; integers wrap.
    Sum = 0,
    /// The product, from source 0 upward; integers wrap.
    Product = 1,
    /// The least value; NaN wins, -0 is less than +0.
    Min = 2,
    /// The greatest value; NaN wins, -0 is less than +0.
    Max = 3,
    /// The sum, then one division by the number of sources; integers divide toward zero.
    Average = 4,
    /// Bitwise and; integers only.
    And = 5,
    /// Bitwise or; integers only.
    Or = 6,
    /// Bitwise exclusive or; integers only.
    Xor = 7,
}

impl ReduceOp {
    /// All operations, in the order of their codes.
    pub const ALL: [ReduceOp; 8] = [
        ReduceOp::Sum,
        ReduceOp::Product,
        ReduceOp::Min,
        ReduceOp::Max,
        ReduceOp::Average,
        ReduceOp::And,
        ReduceOp::Or,
        ReduceOp::Xor,
    ];

    /// Whether the operation is defined for elements of this type: the bitwise ones are for integers only.
    pub const fn supports(self, dtype: DType) -> bool {
        !(dtype.is_float() && matches!(self, ReduceOp::And | ReduceOp::Or | ReduceOp::Xor))
    }

    /// The lower-case name: `sum`, `product`, `min`, `max`, `average`, `and`, `or`, `xor`.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Product => "product",
            ReduceOp::Min => "min",
            ReduceOp::Max => "max",
            ReduceOp::Average => "average",
            ReduceOp::And => "and",
            ReduceOp::Or => "or",
            ReduceOp::Xor => "xor",
        }
    }

    /// The number that stands for this operation in shared memory and on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The operation with this code, if there is one.
    pub fn from_code(code: u8) -> Option<ReduceOp> {
        ReduceOp::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name that is no reduce operation was given where one is needed.
///
/// Use one of the names of [`ReduceOp::name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is not a reduce operation: use one of sum product min max average and or xor")]
pub struct UnknownReduceOp {
    /// The name as it was given.
    pub asked: String,
}

impl FromStr for ReduceOp {
    type Err = UnknownReduceOp;

    fn from_str(name: &str) -> Result<ReduceOp, UnknownReduceOp> {
        ReduceOp::ALL
            .into_iter()
            .find(|op| op.name() == name)
            .ok_or_else(|| UnknownReduceOp { asked: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_the_operation() {
        for op in ReduceOp::ALL {
            assert_eq!(ReduceOp::from_code(op.code()), Some(op));
            assert_eq!(op.name().parse(), Ok(op));
            assert_eq!(op.to_string(), op.name());
        }
        assert_eq!(ReduceOp::from_code(8), None);
        assert!("mean".parse::<ReduceOp>().is_err());
    }

    #[test]
    fn bitwise_operations_are_for_integers_only() {
        assert!(!ReduceOp::And.supports(DType::BF16));
        assert!(ReduceOp::And.supports(DType::U8));
        assert!(ReduceOp::Average.supports(DType::F16));
        assert!(ReduceOp::Average.supports(DType::I8));
    }
}
