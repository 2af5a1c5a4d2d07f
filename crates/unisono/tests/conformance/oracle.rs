//! The reduction as a plain loop: what the library must give, bit for bit, in other words than its own.
//!
//! Rank 0's value first, then rank 1's and so on; f16 and bf16 are widened to f32, reduced there and rounded once;
//! integers wrap; an average divides the sum once; NaN wins in min and max, where -0 is less than +0; a NaN
//! result is the type's canonical one.

use half::{bf16, f16};
use unisono::{DType, ReduceOp};

/// The reduction of all ranks' inputs of one type, in rank order.
pub(crate) fn reduce(dtype: DType, op: ReduceOp, inputs: &[Vec<u8>]) -> Vec<u8> {
    match dtype {
        DType::F32 => {
            each(inputs, f32::from_ne_bytes, |values| canonical_f32(fold_f32(op, values)).to_ne_bytes())
        }
        DType::F64 => {
            each(inputs, f64::from_ne_bytes, |values| canonical_f64(fold_f64(op, values)).to_ne_bytes())
        }
        DType::F16 => {
            let widen = |bytes| f16::from_ne_bytes(bytes).to_f32();
            each(inputs, widen, |values| canonical_f16(f16::from_f32(fold_f32(op, values))).to_ne_bytes())
        }
        DType::BF16 => {
            let widen = |bytes| bf16::from_ne_bytes(bytes).to_f32();
            each(inputs, widen, |values| canonical_bf16(bf16::from_f32(fold_f32(op, values))).to_ne_bytes())
        }
        DType::I8 => each(inputs, i8::from_ne_bytes, |values| fold_i8(op, values).to_ne_bytes()),
        DType::I16 => each(inputs, i16::from_ne_bytes, |values| fold_i16(op, values).to_ne_bytes()),
        DType::I32 => each(inputs, i32::from_ne_bytes, |values| fold_i32(op, values).to_ne_bytes()),
        DType::I64 => each(inputs, i64::from_ne_bytes, |values| fold_i64(op, values).to_ne_bytes()),
        DType::U8 => each(inputs, u8::from_ne_bytes, |values| fold_u8(op, values).to_ne_bytes()),
        DType::U16 => each(inputs, u16::from_ne_bytes, |values| fold_u16(op, values).to_ne_bytes()),
        DType::U32 => each(inputs, u32::from_ne_bytes, |values| fold_u32(op, values).to_ne_bytes()),
        DType::U64 => each(inputs, u64::from_ne_bytes, |values| fold_u64(op, values).to_ne_bytes()),
    }
}

/// For each element: read it from all inputs, fold, and append the result.
fn each<const SIZE: usize, T>(
    inputs: &[Vec<u8>],
    read: impl Fn([u8; SIZE]) -> T,
    fold: impl Fn(&[T]) -> [u8; SIZE],
) -> Vec<u8> {
    let mut output = Vec::with_capacity(inputs[0].len());
    let mut values = Vec::with_capacity(inputs.len());
    for start in (0..inputs[0].len()).step_by(SIZE) {
        values.clear();
        for input in inputs {
            let mut bytes = [0; SIZE];
            bytes.copy_from_slice(&input[start..start + SIZE]);
            values.push(read(bytes));
        }
        output.extend_from_slice(&fold(&values));
    }
    output
}

macro_rules! float_folds {
    ($($name:ident $float:ty),+) => {$(
        fn $name(op: ReduceOp, values: &[$float]) -> $float {
            let mut result = values[0];
            for &value in &values[1..] {
                result = match op {
                    ReduceOp::Sum | ReduceOp::Average => result + value,
                    ReduceOp::Product => result * value,
                    _ if result.is_nan() || value.is_nan() => <$float>::NAN,
                    ReduceOp::Min if value < result || value == result && value.is_sign_negative() => value,
                    ReduceOp::Max if value > result || value == result && value.is_sign_positive() => value,
                    ReduceOp::Min | ReduceOp::Max => result,
                    other => panic!("floats have no {other}"),
                };
            }
            if op == ReduceOp::Average { result / values.len() as $float } else { result }
        }
    )+};
}

float_folds!(fold_f32 f32, fold_f64 f64);

macro_rules! integer_folds {
    ($($name:ident $integer:ty),+) => {$(
        fn $name(op: ReduceOp, values: &[$integer]) -> $integer {
            let mut result = values[0];
            for &value in &values[1..] {
                result = match op {
                    ReduceOp::Sum | ReduceOp::Average => result.wrapping_add(value),
                    ReduceOp::Product => result.wrapping_mul(value),
                    ReduceOp::Min => result.min(value),
                    ReduceOp::Max => result.max(value),
                    ReduceOp::And => result & value,
                    ReduceOp::Or => result | value,
                    ReduceOp::Xor => result ^ value,
                };
            }
            if op == ReduceOp::Average { result / values.len() as $integer } else { result }
        }
    )+};
}

integer_folds!(fold_i8 i8, fold_i16 i16, fold_i32 i32, fold_i64 i64);
integer_folds!(fold_u8 u8, fold_u16 u16, fold_u32 u32, fold_u64 u64);

fn canonical_f32(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value }
}

fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { value }
}

fn canonical_f16(value: f16) -> f16 {
    if value.is_nan() { f16::from_bits(0x7e00) } else { value }
}

fn canonical_bf16(value: bf16) -> bf16 {
    if value.is_nan() { bf16::from_bits(0x7fc0) } else { value }
}
