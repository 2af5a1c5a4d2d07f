//! The element types that a tensor may have.
//!
//! Everything that names a type does it with a [`DType`]: the public API, the fingerprint of a call that
//! ranks compare, the dispatch of kernels. The one invariant that matters: the codes are part of what ranks
//! tell each other, so a code never changes its meaning.

#![allow(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    /// IEEE 754 single precision.
    F32 = 0,
    /// IEEE 754 double precision.
    F64 = 1,
    /// IEEE 754 half precision: 5 bits of exponent, 10 of fraction.
    F16 = 2,
    /// Brain floating point: the upper half of an f32.
    BF16 = 3,
    /// Signed, 8 bits.
    I8 = 4,
    /// Signed, 16 bits.
    I16 = 5,
    /// Signed, 32 bits.
    I32 = 6,
    /// Signed, 64 bits.
    I64 = 7,
    /// Unsigned, 8 bits.
    U8 = 8,
    /// Unsigned, 16 bits.
    U16 = 9,
    /// Unsigned, 32 bits.
    U32 = 10,
    /// Unsigned, 64 bits.
    U64 = 11,
}

impl DType {
    /// All types, in the order of their codes.
    pub const ALL: [DType; 12] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
    ];

    /// The size of one element in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether this is one of the four floating-point types.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// The lower-case name: `f32`, `bf16`, `u8`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
        }
    }

    /// The number that stands for this type in shared memory and on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type with this code, if there is one.
    pub fn from_code(code: u8) -> Option<DType> {
        DType::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name that is no element type was given where one is needed.
///
/// Use one of the names of [`DType::name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is not an element type: use one of f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64")]
pub struct UnknownDType {
    /// The name as it was given.
    pub asked: String,
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<DType, UnknownDType> {
        DType::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| UnknownDType { asked: name.to_owned() })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that stands for a [`DType`]: `f32`, `f64`, [`half::f16`], [`half::bf16`], `i8` … `u64`.
///
/// # Safety
/// An implementor has exactly the size and the representation of its `DTYPE`, and every bit pattern of that
/// size is a valid value. The trait is sealed.
pub unsafe trait Element: Copy + Send + Sync + 'static + sealed::Sealed {
    /// The element type that this Rust type stands for.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),+ $(,)?) => {$(
        impl sealed::Sealed for $rust {}

        // SAFETY: the Rust type is a plain number of the size that `size_bytes` gives for this type
        // (compared below at compile time), and any bit pattern is a number.
        unsafe impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }

        const _: () = assert!(size_of::<$rust>() == DType::$dtype.size_bytes());
    )+};
}

elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_the_type() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(dtype.to_string(), dtype.name());
        }
        assert_eq!(DType::from_code(12), None);
        assert_eq!(DType::from_code(255), None);
        assert!("float".parse::<DType>().is_err());
    }
}
