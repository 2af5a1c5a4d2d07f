//! Inputs and choices that are the same on every rank: numbers drawn by a hash of what they are for.
//!
//! One element in sixteen is a special value: zeros of both signs, infinities, NaNs with payloads, subnormals, the
//! largest and least numbers. The other floats lie near one, so that sums round but seldom overflow.

use unisono::DType;

/// A sequence of numbers that its key alone decides.
#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(key: &[u64]) -> Self {
        Draws(key.iter().fold(0x5ca1_ab1e, |state, word| scramble(state ^ word)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// A number from 0 to `limit - 1`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The finisher of splitmix64: every bit of the result depends on every bit of the word.
fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// `count` elements of a type, as bytes. A shorter list is the beginning of a longer one.
pub(crate) fn elements(dtype: DType, count: usize, key: &[u64]) -> Vec<u8> {
    let mut draws = Draws::new(key);
    let size = dtype.size_bytes();
    let mut bytes = Vec::with_capacity(count * size);
    for _ in 0..count {
        // The low bytes of a little-endian number: both architectures of this project are.
        bytes.extend_from_slice(&element(dtype, draws.next()).to_le_bytes()[..size]);
    }
    bytes
}

/// The bits of one element in the low bits of the result.
fn element(dtype: DType, random: u64) -> u64 {
    let special = random >> 60 == 0;
    let which = (random >> 48 & 0xfff) as usize;
    match (exponent_bits(dtype), special) {
        (Some(exponent), true) => special_float(8 * dtype.size_bytes() as u32, exponent, which, random),
        (Some(exponent), false) => float_near_one(8 * dtype.size_bytes() as u32, exponent, which, random),
        (None, true) => special_integer(8 * dtype.size_bytes() as u32, which),
        (None, false) => random.rotate_left(17),
    }
}

fn exponent_bits(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 | DType::BF16 => Some(8),
        DType::F64 => Some(11),
        DType::F16 => Some(5),
        _ => None,
    }
}

/// Between 1/32 and 64, of either sign.
fn float_near_one(bits: u32, exponent_bits: u32, which: usize, random: u64) -> u64 {
    let fraction_bits = bits - 1 - exponent_bits;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = bias - 5 + (which as u64 % 11);
    let sign = random & 1;
    sign << (bits - 1) | exponent << fraction_bits | (random >> 1 & ((1 << fraction_bits) - 1))
}

fn special_float(bits: u32, exponent_bits: u32, which: usize, random: u64) -> u64 {
    let fraction_bits = bits - 1 - exponent_bits;
    let sign = 1 << (bits - 1);
    let fraction = (1u64 << fraction_bits) - 1;
    let infinity = ((1u64 << exponent_bits) - 1) << fraction_bits;
    let quiet = 1 << (fraction_bits - 1);
    let specials = [
        0,
        sign,
        infinity,
        sign | infinity,
        infinity | quiet | (random & fraction),
        sign | infinity | 1, // a signalling NaN
        1,                   // the least subnormal
        sign | fraction,     // the largest subnormal, negative
        random & fraction,
        infinity - 1, // the largest number
        sign | (infinity - 1),
        1 << fraction_bits, // the least normal number
        ((1 << (exponent_bits - 1)) - 1) << fraction_bits,
    ];
    specials[which % specials.len()]
}

fn special_integer(bits: u32, which: usize) -> u64 {
    let sign = 1u64 << (bits - 1);
    [0, 1, u64::MAX, sign, sign - 1, sign + 1, 2][which % 7]
}
