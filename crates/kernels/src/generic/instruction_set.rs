//! From type and operation to kernel.
//!
//! An [`InstructionSet`] names its vectors and has one function that runs the generic loop with the
//! instruction set switched on. [`kernel`] picks an instance of that function; the [`Reducer`] keeps it.
//!
//! [`Reducer`]: crate::Reducer

#![allow(unsafe_code)]

use super::block::Block;
use super::operation::{And, Average, Max, Min, Operation, Or, Product, Sum, Xor};
use super::vector::{BitLanes, Streaming, Vector};
use crate::dtype::DType;
use crate::op::ReduceOp;

/// A reduction of one type with one operation: destinations, sources, number of elements.
///
/// # Safety
/// As for [`reduce`](super::reduce::reduce).
pub(crate) type Kernel = unsafe fn(&[*mut u8], &[*const u8], usize);

/// A copy: destination, source, bytes.
///
/// # Safety
/// As for [`copy`](super::copy::copy).
pub(crate) type Copy = unsafe fn(*mut u8, *const u8, usize);

/// The vectors of an instruction set and the functions that switch it on.
pub(crate) trait InstructionSet {
    type F32: Vector;
    type F64: Vector;
    type F16: Vector;
    type Bf16: Vector;
    type I8: Vector;
    type I16: Vector;
    type I32: Vector;
    type I64: Vector;
    type U8: Vector + BitLanes + Streaming;
    type U16: Vector + BitLanes;
    type U32: Vector + BitLanes;
    type U64: Vector + BitLanes;

    /// Runs [`reduce`](super::reduce::reduce).
    ///
    /// # Safety
    /// As for `reduce`: above all, the machine has this instruction set.
    unsafe fn reduce<V, O>(destinations: &[*mut u8], sources: &[*const u8], count: usize)
    where
        V: Vector,
        O: Operation<V> + Operation<Block<V>>;

    /// Runs [`copy`](super::copy::copy).
    ///
    /// # Safety
    /// As for `copy`: above all, the machine has this instruction set.
    unsafe fn copy(destination: *mut u8, source: *const u8, bytes: usize);

    /// Runs [`copy_streaming`](super::copy::copy_streaming).
    ///
    /// # Safety
    /// As for `copy_streaming`: above all, the machine has this instruction set.
    unsafe fn copy_streaming(destination: *mut u8, source: *const u8, bytes: usize);
}

/// The kernel for this type and operation, if the operation is defined for the type.
pub(crate) fn kernel<I: InstructionSet>(dtype: DType, op: ReduceOp) -> Option<Kernel> {
    match dtype {
        DType::F32 => float::<I, I::F32>(op),
        DType::F64 => float::<I, I::F64>(op),
        DType::F16 => float::<I, I::F16>(op),
        DType::BF16 => float::<I, I::Bf16>(op),
        DType::I8 => Some(integer::<I, I::I8, I::U8>(op)),
        DType::I16 => Some(integer::<I, I::I16, I::U16>(op)),
        DType::I32 => Some(integer::<I, I::I32, I::U32>(op)),
        DType::I64 => Some(integer::<I, I::I64, I::U64>(op)),
        DType::U8 => Some(integer::<I, I::U8, I::U8>(op)),
        DType::U16 => Some(integer::<I, I::U16, I::U16>(op)),
        DType::U32 => Some(integer::<I, I::U32, I::U32>(op)),
        DType::U64 => Some(integer::<I, I::U64, I::U64>(op)),
    }
}

fn float<I: InstructionSet, V: Vector>(op: ReduceOp) -> Option<Kernel> {
    match op {
        ReduceOp::Sum => Some(I::reduce::<V, Sum>),
        ReduceOp::Product => Some(I::reduce::<V, Product>),
        ReduceOp::Min => Some(I::reduce::<V, Min>),
        ReduceOp::Max => Some(I::reduce::<V, Max>),
        ReduceOp::Average => Some(I::reduce::<V, Average>),
        ReduceOp::And | ReduceOp::Or | ReduceOp::Xor => None,
    }
}

/// What does not depend on the sign is computed as unsigned, so that both types share one kernel.
fn integer<I: InstructionSet, V: Vector, Unsigned: Vector + BitLanes>(op: ReduceOp) -> Kernel {
    match op {
        ReduceOp::Sum => I::reduce::<Unsigned, Sum>,
        ReduceOp::Product => I::reduce::<Unsigned, Product>,
        ReduceOp::Min => I::reduce::<V, Min>,
        ReduceOp::Max => I::reduce::<V, Max>,
        ReduceOp::Average => I::reduce::<V, Average>,
        ReduceOp::And => I::reduce::<Unsigned, And>,
        ReduceOp::Or => I::reduce::<Unsigned, Or>,
        ReduceOp::Xor => I::reduce::<Unsigned, Xor>,
    }
}
