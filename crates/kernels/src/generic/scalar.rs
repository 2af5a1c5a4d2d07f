//! The arithmetic of a single element.
//!
//! The portable vectors are arrays of these, and the few operations for which an instruction set has no
//! instruction go through them. The one invariant that matters: each gives the bits that [`Lanes`] promises.
//!
//! [`Lanes`]: super::vector::Lanes

/// One number.
pub(crate) trait Scalar: Copy {
    /// `self + other`; integers wrap.
    fn add(self, other: Self) -> Self;
    /// `self * other`; integers wrap.
    fn multiply(self, other: Self) -> Self;
    /// The lesser; -0 is less than +0. If one is NaN, some NaN.
    fn minimum(self, other: Self) -> Self;
    /// The greater; -0 is less than +0. If one is NaN, some NaN.
    fn maximum(self, other: Self) -> Self;
    /// `self / divisor`: floats round once, integers go toward zero.
    fn divide(self, divisor: usize) -> Self;
    /// The same number, or the canonical quiet NaN.
    fn canonical(self) -> Self;
}

/// One integer.
pub(crate) trait BitScalar: Scalar {
    /// Bitwise and.
    fn and(self, other: Self) -> Self;
    /// Bitwise or.
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
}

macro_rules! floats {
    ($($float:ty: $bits:ty, $canonical:literal;)+) => {$(
        impl Scalar for $float {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }

            // Compared both ways, equal numbers give first the one and then the other; their bits differ
            // in the sign of a zero only, so `or` finds the negative one and `and` the positive one.

            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                let forth = if self < other { self } else { other };
                let back = if other < self { other } else { self };
                // With a NaN the two are the two operands: a NaN stays one when bits are added to it.
                <$float>::from_bits(forth.to_bits() | back.to_bits())
            }

            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                let forth = if self > other { self } else { other };
                let back = if other > self { other } else { self };
                let greater = <$float>::from_bits(forth.to_bits() & back.to_bits());
                if self.is_nan() | other.is_nan() { <$float>::from_bits($canonical) } else { greater }
            }

            #[inline(always)]
            fn divide(self, divisor: usize) -> Self {
                self / divisor as $float
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                if self.is_nan() { <$float>::from_bits($canonical) } else { self }
            }
        }
    )+};
}

floats! {
    f32: u32, 0x7fc0_0000;
    f64: u64, 0x7ff8_0000_0000_0000;
}

macro_rules! integers {
    ($($integer:ty: divided as $wide:ty;)+) => {$(
        impl Scalar for $integer {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                if self < other { self } else { other }
            }

            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                if self > other { self } else { other }
            }

            #[inline(always)]
            fn divide(self, divisor: usize) -> Self {
                // Wide enough for the divisor. A quotient is no larger than what is divided, so it fits;
                // there is no reduction of zero sources that would divide by zero.
                (self as $wide).checked_div(divisor as $wide).unwrap_or(0) as $integer
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                self
            }
        }

        impl BitScalar for $integer {
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }

            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }

            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
        }
    )+};
}

integers! {
    i8: divided as i32;
    i16: divided as i32;
    i32: divided as i64;
    i64: divided as i64;
    u8: divided as u32;
    u16: divided as u32;
    u32: divided as u64;
    u64: divided as u64;
}

/// Divides numbers one by one. Never inlined: next to so many divisions a call is nothing, and unrolled into
/// every kernel they would be most of its code.
#[inline(never)]
pub(crate) fn divide_each<T: Scalar>(numbers: &mut [T], divisor: usize) {
    for number in numbers {
        *number = number.divide(divisor);
    }
}

/// Widens IEEE half precision, exactly. NaNs stay NaNs.
#[inline(always)]
pub(crate) fn widen_ieee(half: u16) -> f32 {
    /// What the difference of the two exponent biases, 127 - 15, is worth.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(half & 0x7fff);
    // Shifted into place the exponent is too small by the difference of the biases. The product puts that
    // right and is exact, also for what reads as a subnormal.
    let finite = f32::from_bits(magnitude << 13) * REBIAS;
    let exceptional = 0x7f80_0000 | (magnitude << 13);
    let bits = if magnitude >= 0x7c00 { exceptional } else { finite.to_bits() };
    f32::from_bits(bits | (u32::from(half & 0x8000) << 16))
}

/// Rounds to IEEE half precision, once, to nearest even. A NaN becomes the canonical one of its sign.
#[inline(always)]
pub(crate) fn narrow_ieee(single: f32) -> u16 {
    /// The least magnitude that overflows for certain: 2^16.
    const OVERFLOW: u32 = (127 + 16) << 23;
    /// The least normal number: 2^-14.
    const NORMAL: u32 = (127 - 14) << 23;
    /// In the binade of 0.5 the last place of an f32 is that of a subnormal half: 2^-24.
    const ALIGN: f32 = 0.5;

    let bits = single.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let exceptional = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let subnormal = (f32::from_bits(magnitude) + ALIGN).to_bits().wrapping_sub(ALIGN.to_bits());
    // Half of the last place, or less by one bit where the number is even, then cut off.
    let rounded = magnitude.wrapping_add(0xfff + ((magnitude >> 13) & 1));
    let normal = rounded.wrapping_sub(112 << 23) >> 13;
    let narrow = if magnitude >= OVERFLOW {
        exceptional
    } else if magnitude < NORMAL {
        subnormal
    } else {
        normal
    };
    narrow as u16 | ((bits >> 16) & 0x8000) as u16
}

/// Widens brain floating point, exactly.
#[inline(always)]
pub(crate) fn widen_brain(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Rounds to brain floating point, once, to nearest even, subnormals included. The canonical NaN stays it.
#[inline(always)]
pub(crate) fn narrow_brain(single: f32) -> u16 {
    let bits = single.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}
