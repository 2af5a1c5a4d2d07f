//! Numbers that find mistakes: the corners of each type, plain ones, and any bits at all.

use unisono_kernels::DType;

/// A small generator with a seed, so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 random bits (the mixing steps of splitmix64).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }
}

/// `count` elements in memory order. One of four flavours is drawn for all of them, so that whole vectors of
/// ordinary numbers occur as well as crowds of NaNs.
pub(crate) fn elements(dtype: DType, count: usize, random: &mut Random) -> Vec<u8> {
    let flavour = random.below(4);
    let mut bytes = Vec::with_capacity(count * dtype.size_bytes());
    for _ in 0..count {
        let bits = match flavour {
            0 => random.bits(),
            1 => special(dtype, random),
            2 => plain(dtype, random),
            _ if random.below(8) == 0 => special(dtype, random),
            _ => plain(dtype, random),
        };
        bytes.extend(&bits.to_le_bytes()[..dtype.size_bytes()]);
    }
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(dtype.size_bytes()).for_each(<[u8]>::reverse);
    }
    bytes
}

/// The number of exponent and of fraction bits.
fn layout(dtype: DType) -> (u32, u32) {
    match dtype {
        DType::F64 => (11, 52),
        DType::F16 => (5, 10),
        DType::BF16 => (8, 7),
        _ => (8, 23),
    }
}

/// A corner of the type: zeros, infinities, NaNs of each kind, subnormals, the ends of the range, of any sign.
fn special(dtype: DType, random: &mut Random) -> u64 {
    let width = 8 * dtype.size_bytes() as u32;
    if !dtype.is_float() {
        let corners = [0, 1, u64::MAX, 1 << (width - 1), (1 << (width - 1)) - 1, 1 << (width / 2), 2, 3];
        return corners[random.below(corners.len())];
    }
    let (exponent_bits, fraction_bits) = layout(dtype);
    let infinity = ((1_u64 << exponent_bits) - 1) << fraction_bits;
    let quiet = 1_u64 << (fraction_bits - 1);
    let one = ((1_u64 << (exponent_bits - 1)) - 1) << fraction_bits;
    let least_normal = 1_u64 << fraction_bits;
    let corners = [
        0,
        infinity,
        infinity | quiet,
        infinity | quiet | (random.bits() & (quiet - 1)),
        infinity | 1,
        infinity | (random.bits() & (quiet - 1)).max(1),
        infinity | (2 * quiet - 1),
        1,
        random.bits() & (least_normal - 1),
        least_normal - 1,
        least_normal,
        least_normal + 1,
        infinity - 1,
        infinity - least_normal,
        one,
        one + 1,
        one - 1,
    ];
    let sign = (random.bits() & 1) << (width - 1);
    corners[random.below(corners.len())] | sign
}

/// A number near one for floats, a small one for integers: sums of them are ordinary and need rounding.
fn plain(dtype: DType, random: &mut Random) -> u64 {
    if !dtype.is_float() {
        return (random.below(201) as i64 - 100) as u64;
    }
    let width = 8 * dtype.size_bytes() as u32;
    let (exponent_bits, fraction_bits) = layout(dtype);
    let bias = (1_u64 << (exponent_bits - 1)) - 1;
    let exponent = bias + random.below(8) as u64 - 4;
    let fraction = random.bits() & ((1 << fraction_bits) - 1);
    ((random.bits() & 1) << (width - 1)) | (exponent << fraction_bits) | fraction
}
