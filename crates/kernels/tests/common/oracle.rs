//! The promised result of a reduction, computed one element at a time in the plainest way.

use half::{bf16, f16};
use unisono_kernels::{DType, ReduceOp};

const WHOLE: &str = "an element is as long as its type";

/// Folds `sources`, each `count` elements in memory order, as the crate promises to.
pub(crate) fn reduced(dtype: DType, op: ReduceOp, sources: &[Vec<u8>], count: usize) -> Vec<u8> {
    let size = dtype.size_bytes();
    let mut result = Vec::with_capacity(count * size);
    for i in 0..count {
        let elements: Vec<&[u8]> = sources.iter().map(|source| &source[i * size..(i + 1) * size]).collect();
        result.extend(element(dtype, op, &elements));
    }
    result
}

fn element(dtype: DType, op: ReduceOp, sources: &[&[u8]]) -> Vec<u8> {
    macro_rules! integer {
        ($type:ty) => {{
            let values: Vec<$type> =
                sources.iter().map(|s| <$type>::from_ne_bytes((*s).try_into().expect(WHOLE))).collect();
            let folded = |fold: fn($type, $type) -> $type| {
                values.iter().copied().reduce(fold).expect("at least one source")
            };
            match op {
                ReduceOp::Sum => folded(<$type>::wrapping_add),
                ReduceOp::Product => folded(<$type>::wrapping_mul),
                ReduceOp::Min => folded(Ord::min),
                ReduceOp::Max => folded(Ord::max),
                ReduceOp::Average => (folded(<$type>::wrapping_add) as i128 / values.len() as i128) as $type,
                ReduceOp::And => folded(|a, b| a & b),
                ReduceOp::Or => folded(|a, b| a | b),
                ReduceOp::Xor => folded(|a, b| a ^ b),
            }
            .to_ne_bytes()
            .to_vec()
        }};
    }
    match dtype {
        DType::F32 => {
            let values = sources.iter().map(|s| f32::from_ne_bytes((*s).try_into().expect(WHOLE)));
            single(op, &values.collect::<Vec<_>>()).to_ne_bytes().to_vec()
        }
        DType::F64 => {
            let values = sources.iter().map(|s| f64::from_ne_bytes((*s).try_into().expect(WHOLE)));
            double(op, &values.collect::<Vec<_>>()).to_ne_bytes().to_vec()
        }
        DType::F16 => {
            let values = sources.iter().map(|s| f16::from_ne_bytes((*s).try_into().expect(WHOLE)).to_f32());
            let result = single(op, &values.collect::<Vec<_>>());
            let rounded = if result.is_nan() { f16::from_bits(0x7e00) } else { f16::from_f32(result) };
            rounded.to_ne_bytes().to_vec()
        }
        DType::BF16 => {
            let values = sources.iter().map(|s| bf16::from_ne_bytes((*s).try_into().expect(WHOLE)).to_f32());
            let result = single(op, &values.collect::<Vec<_>>());
            let rounded = if result.is_nan() { bf16::from_bits(0x7fc0) } else { bf16::from_f32(result) };
            rounded.to_ne_bytes().to_vec()
        }
        DType::I8 => integer!(i8),
        DType::I16 => integer!(i16),
        DType::I32 => integer!(i32),
        DType::I64 => integer!(i64),
        DType::U8 => integer!(u8),
        DType::U16 => integer!(u16),
        DType::U32 => integer!(u32),
        DType::U64 => integer!(u64),
    }
}

macro_rules! float {
    ($name:ident, $type:ty, $nan:literal) => {
        fn $name(op: ReduceOp, values: &[$type]) -> $type {
            let mut accumulator = values[0];
            for &next in &values[1..] {
                accumulator = match op {
                    ReduceOp::Sum | ReduceOp::Average => accumulator + next,
                    ReduceOp::Product => accumulator * next,
                    _ if accumulator.is_nan() || next.is_nan() => <$type>::NAN,
                    // The total order puts -0 before +0 and agrees with `<` on all other numbers.
                    ReduceOp::Min => std::cmp::min_by(accumulator, next, <$type>::total_cmp),
                    ReduceOp::Max => std::cmp::max_by(accumulator, next, <$type>::total_cmp),
                    ReduceOp::And | ReduceOp::Or | ReduceOp::Xor => unreachable!("integers only"),
                };
            }
            if op == ReduceOp::Average {
                accumulator /= values.len() as $type;
            }
            if accumulator.is_nan() { <$type>::from_bits($nan) } else { accumulator }
        }
    };
}

float!(single, f32, 0x7fc0_0000);
float!(double, f64, 0x7ff8_0000_0000_0000);
