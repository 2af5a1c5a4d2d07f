//! The quick all-reduce as a plain loop over numbers: what each rank must end with, and how far that may be from the exact sum.
//!
//! Written from the description, not from the kernels: blocks are gathered into arrays, values are chosen by comparison.

use half::{bf16, f16};
use unisono_gpu::{Arithmetic, DType, QuantLevel, QuickHow};

/// A 16-bit type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    F16,
    Bf16,
}

impl Half {
    pub(crate) fn value(self, bits: u16) -> f32 {
        match self {
            Self::F16 => f16::from_bits(bits).to_f32(),
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
        }
    }

    /// To nearest even; the canonical NaN.
    pub(crate) fn bits(self, value: f32) -> u16 {
        match (self, value.is_nan()) {
            (Self::F16, true) => 0x7e00,
            (Self::Bf16, true) => 0x7fc0,
            (Self::F16, false) => f16::from_f32(value).to_bits(),
            (Self::Bf16, false) => bf16::from_f32(value).to_bits(),
        }
    }

    fn rounded(self, value: f32) -> f32 {
        self.value(self.bits(value))
    }

    /// Half a last place of a number between 1 and 2.
    fn unit(self) -> f64 {
        match self {
            Self::F16 => 2.0_f64.powi(-11),
            Self::Bf16 => 2.0_f64.powi(-8),
        }
    }
}

/// In what the values of a message of this type travel.
pub(crate) fn travels_as(dtype: DType, how: QuickHow) -> Half {
    if dtype == DType::F16 || how.as_f16 { Half::F16 } else { Half::Bf16 }
}

/// The type of the message itself.
pub(crate) fn given_as(dtype: DType) -> Half {
    if dtype == DType::F16 { Half::F16 } else { Half::Bf16 }
}

/// Values, and the indices of the values with which each shares a scale: of 64 in a row those at even places, or those at odd.
fn blocks(count: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..count.div_ceil(64) * 2).map(move |block| {
        let begin = block / 2 * 64 + block % 2;
        (begin..begin + 64).step_by(2).filter(|index| *index < count).collect()
    })
}

/// The value of the largest magnitude, of two opposite ones the negative; a NaN if there is one.
fn extreme(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, value| {
        if most.is_nan() || value.is_nan() {
            f32::NAN
        } else if value.abs() > most.abs() || (value.abs() == most.abs() && value.is_sign_negative()) {
            value
        } else {
            most
        }
    })
}

/// What the receiver makes of what the sender made of these values.
fn sent(values: &[f32], half: Half, how: QuickHow) -> Vec<f32> {
    let bits = how.level.bits();
    if how.level == QuantLevel::Fp {
        return values.to_vec();
    }
    let narrow = how.arithmetic == Arithmetic::Narrow;
    let rounded = |value: f32| if narrow { half.rounded(value) } else { value };
    let lowest = -(2.0_f32.powi(bits as i32 - 1));
    let mut found = vec![0.0; values.len()];
    for block in blocks(values.len()) {
        let scale = half.rounded(extreme(block.iter().map(|index| values[*index])) / lowest);
        let inverse = match how.arithmetic {
            Arithmetic::Narrow => {
                let epsilon = half.value(if half == Half::F16 { 0x0001 } else { 0x33d7 });
                rounded(1.0 / rounded(scale + epsilon))
            }
            Arithmetic::Wide if scale == 0.0 => 0.0,
            Arithmetic::Wide => 1.0 / scale,
        };
        for index in block {
            let scaled = rounded(values[index] * inverse);
            let nearest =
                if scaled.is_nan() { lowest } else { scaled.clamp(lowest, -lowest - 1.0).round_ties_even() };
            // As an integer, zero has no sign.
            found[index] = rounded((nearest as i32) as f32 * scale);
        }
    }
    found
}

/// What every rank must end with.
pub(crate) fn all_reduce(inputs: &[Vec<u16>], dtype: DType, how: QuickHow) -> Vec<u16> {
    let (half, given) = (travels_as(dtype, how), given_as(dtype));
    let narrow = how.arithmetic == Arithmetic::Narrow;
    let received = inputs.iter().map(|input| {
        let values: Vec<f32> = input.iter().map(|bits| half.rounded(given.value(*bits))).collect();
        sent(&values, half, how)
    });
    let add = |sum: Vec<f32>, more: Vec<f32>| {
        let add =
            |(left, right): (&f32, &f32)| if narrow { half.rounded(left + right) } else { left + right };
        sum.iter().zip(&more).map(add).collect()
    };
    let sum: Vec<f32> = received.reduce(add).unwrap().iter().map(|value| half.rounded(*value)).collect();
    sent(&sum, half, how).iter().map(|value| given.bits(half.rounded(*value))).collect()
}

/// How far each element may be from the exact sum of inputs of ordinary size: per rank and once more for the sum what is lost in
/// sending, and the roundings of the additions.
pub(crate) fn bounds(inputs: &[Vec<u16>], dtype: DType, how: QuickHow) -> Vec<f64> {
    let (half, given) = (travels_as(dtype, how), given_as(dtype));
    let unit = half.unit();
    let lost = |largest: f64| match (how.level, how.arithmetic) {
        (QuantLevel::Fp, _) => 0.0,
        (level, Arithmetic::Narrow) => largest * (2.0_f64.powi(1 - level.bits() as i32) + 4.2 * unit),
        (level, Arithmetic::Wide) => largest * (2.0_f64.powi(1 - level.bits() as i32) + unit),
    };
    let value = |input: &Vec<u16>, index: usize| f64::from(given.value(input[index])).abs();
    let mut bounds = vec![0.0; inputs[0].len()];
    for block in blocks(bounds.len()) {
        let largest = |input: &Vec<u16>| block.iter().map(|index| value(input, *index)).fold(0.0, f64::max);
        let of_ranks: f64 = inputs.iter().map(&largest).map(lost).sum();
        // No sum is larger than this, and each addition rounds at most so much.
        let most: f64 = inputs.iter().map(&largest).map(|largest| largest + lost(largest)).sum();
        let roundings = if how.arithmetic == Arithmetic::Narrow { inputs.len() as f64 } else { 1.0 };
        let cast = if given == half { 0.0 } else { most * (2.0_f64.powi(-11) + 2.0_f64.powi(-8)) };
        for index in block {
            bounds[index] = of_ranks + lost(most) + most * unit * (roundings + 1.0) + cast;
        }
    }
    bounds
}
