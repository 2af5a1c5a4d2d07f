//! Element types, reductions and operations as the header has them.
//!
//! A C program can pass any number where the header says an enum, so a parameter is a [`MaybeUninit`]: memory of the enum's size
//! in which any number may stand, and which becomes the library's type only when the number is one.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use unisono::{DType, Operation, ReduceOp};

use crate::boundary::{Result, refused};

/// The type of elements.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_dtype {
    /// IEEE 754 single precision.
    F32 = 0,
    /// IEEE 754 double precision.
    F64 = 1,
    /// IEEE 754 half precision.
    F16 = 2,
    /// Brain floating point: the upper half of an F32.
    BF16 = 3,
    /// Signed, 8 bits.
    I8 = 4,
    /// Signed, 16 bits.
    I16 = 5,
    /// Signed, 32 bits.
    I32 = 6,
    /// Signed, 64 bits.
    I64 = 7,
    /// Unsigned, 8 bits; also for bytes of any other type that are only moved.
    U8 = 8,
    /// Unsigned, 16 bits.
    U16 = 9,
    /// Unsigned, 32 bits.
    U32 = 10,
    /// Unsigned, 64 bits.
    U64 = 11,
}

/// How elements are reduced: from rank 0 upward, the same bits on every rank. F16 and BF16 are added up in F32 and rounded once.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_op {
    /// The sum; integers wrap.
    Sum = 0,
    /// The product; integers wrap.
    Product = 1,
    /// The least value; NaN wins, -0 is less than +0.
    Min = 2,
    /// The greatest value; NaN wins, -0 is less than +0.
    Max = 3,
    /// The sum, then one division by the number of ranks; integers divide toward zero.
    Average = 4,
    /// Bitwise and; integers only.
    And = 5,
    /// Bitwise or; integers only.
    Or = 6,
    /// Bitwise exclusive or; integers only.
    Xor = 7,
}

/// The operations that unisono_start() can start.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_operation {
    /// unisono_all_reduce; with memory unisono_all_reduce_registered.
    AllReduce = 1,
    /// unisono_reduce_scatter; with memory unisono_reduce_scatter_registered.
    ReduceScatter = 2,
    /// unisono_all_gather; with a shape unisono_all_gather_dim, with memory unisono_all_gather_registered.
    AllGather = 3,
    /// unisono_broadcast; with memory unisono_broadcast_registered.
    Broadcast = 4,
    /// unisono_reduce; with memory unisono_reduce_registered.
    Reduce = 5,
    /// unisono_gather.
    Gather = 6,
    /// unisono_scatter.
    Scatter = 7,
    /// unisono_all_to_all.
    AllToAll = 8,
    /// unisono_barrier.
    Barrier = 9,
    /// unisono_all_gather_v.
    AllGatherV = 10,
    /// unisono_reduce_scatter_v.
    ReduceScatterV = 11,
    /// unisono_all_to_all_v.
    AllToAllV = 12,
    /// unisono_gather_v.
    GatherV = 13,
    /// unisono_scatter_v.
    ScatterV = 14,
    /// unisono_send.
    Send = 15,
    /// unisono_recv.
    Recv = 16,
}

/// # Safety
/// `repr(i32)`.
pub(crate) unsafe trait Coded: Sized {
    /// The library's type for it.
    type Meaning;
    /// What it is called in errors.
    const NAME: &'static str;

    fn meaning(code: i32) -> Option<Self::Meaning>;
}

// SAFETY: `repr(i32)`.
unsafe impl Coded for unisono_dtype {
    type Meaning = DType;
    const NAME: &'static str = "unisono_dtype";

    fn meaning(code: i32) -> Option<DType> {
        u8::try_from(code).ok().and_then(DType::from_code)
    }
}

// SAFETY: `repr(i32)`.
unsafe impl Coded for unisono_op {
    type Meaning = ReduceOp;
    const NAME: &'static str = "unisono_op";

    fn meaning(code: i32) -> Option<ReduceOp> {
        u8::try_from(code).ok().and_then(ReduceOp::from_code)
    }
}

// SAFETY: `repr(i32)`.
unsafe impl Coded for unisono_operation {
    type Meaning = Operation;
    const NAME: &'static str = "unisono_operation";

    fn meaning(code: i32) -> Option<Operation> {
        use Operation::*;
        let can_be_started = [
            AllReduce,
            ReduceScatter,
            AllGather,
            Broadcast,
            Reduce,
            Gather,
            Scatter,
            AllToAll,
            Barrier,
            AllGatherV,
            ReduceScatterV,
            AllToAllV,
            GatherV,
            ScatterV,
            Send,
            Recv,
        ];
        can_be_started.into_iter().find(|operation| *operation as i32 == code)
    }
}

/// The number that stands in a parameter.
#[inline]
pub(crate) fn code_of<E: Coded>(given: MaybeUninit<E>) -> i32 {
    const { assert!(size_of::<E>() == size_of::<i32>() && align_of::<E>() == align_of::<i32>()) };
    // SAFETY: of the same size, and initialised: a C program passed a number, and zeroed memory is one. Any is an `i32`.
    unsafe { std::mem::transmute_copy(&given) }
}

/// What a parameter means, if the number is one of the enum's.
#[inline]
pub(crate) fn meaning_of<E: Coded>(operation: &'static str, given: MaybeUninit<E>) -> Result<E::Meaning> {
    let code = code_of(given);
    E::meaning(code).ok_or_else(|| refused(operation, format!("{code} is no {}", E::NAME)))
}

/// The size of an element in bytes; 0 for a number that is no type.
#[unsafe(no_mangle)]
pub extern "C" fn unisono_dtype_size(dtype: MaybeUninit<unisono_dtype>) -> usize {
    unisono_dtype::meaning(code_of(dtype)).map_or(0, DType::size_bytes)
}

/// The name of a type, such as "bf16"; "unknown" for a number that is none.
#[unsafe(no_mangle)]
pub extern "C" fn unisono_dtype_name(dtype: MaybeUninit<unisono_dtype>) -> *const c_char {
    const NAMES: [&CStr; 12] =
        [c"f32", c"f64", c"f16", c"bf16", c"i8", c"i16", c"i32", c"i64", c"u8", c"u16", c"u32", c"u64"];
    let code = usize::try_from(code_of(dtype)).unwrap_or(usize::MAX);
    NAMES.get(code).unwrap_or(&c"unknown").as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a C program passes.
    fn given<E: Coded>(code: i32) -> MaybeUninit<E> {
        // SAFETY: `MaybeUninit` of a `repr(i32)` is memory of that size, in which anything may stand.
        unsafe { std::mem::transmute_copy(&code) }
    }

    #[test]
    fn the_numbers_are_the_librarys() {
        for dtype in DType::ALL {
            let code = given::<unisono_dtype>(dtype as i32);
            assert_eq!(meaning_of("test", code).unwrap(), dtype);
            assert_eq!(unisono_dtype_size(code), dtype.size_bytes());
            // SAFETY: names are static.
            let name = unsafe { CStr::from_ptr(unisono_dtype_name(code)) };
            assert_eq!(name.to_str().unwrap(), dtype.to_string());
        }
        for op in ReduceOp::ALL {
            assert_eq!(meaning_of("test", given::<unisono_op>(op as i32)).unwrap(), op);
        }
        let (dtype, op) = (unisono_dtype::BF16, unisono_op::Average);
        assert_eq!(meaning_of("test", MaybeUninit::new(dtype)).unwrap(), DType::BF16);
        assert_eq!(meaning_of("test", MaybeUninit::new(op)).unwrap(), ReduceOp::Average);
        assert_eq!(meaning_of("test", MaybeUninit::new(unisono_operation::Recv)).unwrap(), Operation::Recv);
    }

    #[test]
    fn other_numbers_are_refused() {
        for code in [-1, 12, 256, i32::MAX, i32::MIN] {
            assert!(meaning_of("test", given::<unisono_dtype>(code)).is_err());
            assert_eq!(unisono_dtype_size(given(code)), 0);
            assert!(meaning_of("test", given::<unisono_op>(code)).is_err());
        }
        for code in [-1, 0, 17, 256 + 1, i32::MAX, i32::MIN] {
            assert!(meaning_of("test", given::<unisono_operation>(code)).is_err());
        }
    }
}
