//! Arithmetic on bits: what one instruction makes of its operands.
//!
//! Floating point is IEEE, rounded to nearest even, with subnormals. A NaN that an f32 operation or a conversion makes is
//! the one that the hardware makes: all ones but the sign.

use std::cmp::Ordering;

use half::{bf16, f16};

use crate::code::{Binary, Comparison, Meaning, Type, Unary};

/// The NaN that PTX's f32 operations return, whatever NaNs went in.
const NAN_F32: u32 = 0x7fff_ffff;
/// The same for conversions to f16 and to bf16.
const NAN_HALF: u16 = 0x7fff;

/// The lowest `width` bits.
pub(crate) fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// The value of a signed number of `width` bits.
fn signed(bits: u64, width: u32) -> i64 {
    let above = 64 - width;
    (bits << above).cast_signed() >> above
}

fn float(bits: u64) -> f32 {
    // The upper half of a register that holds an f32 is zero.
    f32::from_bits(bits as u32)
}

fn float_bits(value: f32) -> u64 {
    u64::from(if value.is_nan() { NAN_F32 } else { value.to_bits() })
}

pub(crate) fn unary(what: Unary, kind: Type, value: u64) -> u64 {
    let found = match what {
        Unary::Negate => value.wrapping_neg(),
        Unary::Not => !value,
    };
    found & mask(kind.width)
}

pub(crate) fn binary(what: Binary, kind: Type, left: u64, right: u64) -> u64 {
    if kind.meaning == Meaning::Float {
        return float_binary(what, left, right);
    }
    let (width, is_signed) = (kind.width, kind.meaning == Meaning::Signed);
    let found = match what {
        Binary::Add => left.wrapping_add(right),
        Binary::Subtract => left.wrapping_sub(right),
        Binary::Multiply => left.wrapping_mul(right),
        Binary::MultiplyHigh => multiply_high(kind, left, right),
        Binary::And => left & right,
        Binary::Or => left | right,
        Binary::Xor => left ^ right,
        // Shifts by more than the width are as if by the width.
        Binary::ShiftLeft if right >= u64::from(width) => 0,
        Binary::ShiftLeft => left << right,
        Binary::ShiftRight if is_signed => {
            (signed(left, width) >> right.min(u64::from(width) - 1)).cast_unsigned()
        }
        Binary::ShiftRight if right >= u64::from(width) => 0,
        Binary::ShiftRight => left >> right,
        Binary::Minimum | Binary::Maximum => {
            let left_is_less = order(kind, left, right) == Some(Ordering::Less);
            if left_is_less == (what == Binary::Minimum) { left } else { right }
        }
    };
    found & mask(width)
}

fn float_binary(what: Binary, left: u64, right: u64) -> u64 {
    let (left, right) = (float(left), float(right));
    float_bits(match what {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        // The decoder lets no other operation on floats through.
        _ => left * right,
    })
}

fn multiply_high(kind: Type, left: u64, right: u64) -> u64 {
    (if kind.meaning == Meaning::Signed {
        let product = i128::from(signed(left, kind.width)) * i128::from(signed(right, kind.width));
        (product >> kind.width).cast_unsigned()
    } else {
        (u128::from(left) * u128::from(right)) >> kind.width
    }) as u64
}

/// `into` with `length` of its bits from `position` on replaced by the lowest of `from`; of both numbers 8 bits count.
pub(crate) fn insert(width: u32, from: u64, into: u64, position: u64, length: u64) -> u64 {
    let (position, length) = (position & 0xff, (length & 0xff).min(u64::from(width)));
    if position >= u64::from(width) {
        return into & mask(width);
    }
    let bits = mask(length as u32) << position & mask(width);
    (into & !bits | from << position & bits) & mask(width)
}

/// Of values of at most 32 bits.
pub(crate) fn multiply_wide(kind: Type, left: u64, right: u64) -> u64 {
    let product = if kind.meaning == Meaning::Signed {
        (signed(left, kind.width) * signed(right, kind.width)).cast_unsigned()
    } else {
        left * right
    };
    product & mask(2 * kind.width)
}

pub(crate) fn multiply_add(kind: Type, left: u64, right: u64, more: u64) -> u64 {
    if kind.meaning == Meaning::Float {
        return float_bits(float(left).mul_add(float(right), float(more)));
    }
    left.wrapping_mul(right).wrapping_add(more) & mask(kind.width)
}

/// `None` where one of two floats is a NaN.
fn order(kind: Type, left: u64, right: u64) -> Option<Ordering> {
    match kind.meaning {
        Meaning::Float => float(left).partial_cmp(&float(right)),
        Meaning::Signed => Some(signed(left, kind.width).cmp(&signed(right, kind.width))),
        _ => Some(left.cmp(&right)),
    }
}

pub(crate) fn compare(what: Comparison, kind: Type, left: u64, right: u64) -> bool {
    let Some(order) = order(kind, left, right) else { return what == Comparison::NotNumbers };
    match what {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Numbers => true,
        Comparison::NotNumbers => false,
    }
}

/// Between integers of any width, from f16 and bf16 to f32 (exact), and from f32 to them (to nearest even).
pub(crate) fn convert(into: Type, of: Type, value: u64) -> u64 {
    let bits = (value & mask(of.width)) as u16;
    match (into.meaning, of.meaning) {
        (Meaning::Float, Meaning::Float) if into.width == 32 => float_bits(f16::from_bits(bits).to_f32()),
        (Meaning::Float, Meaning::Brain) => float_bits(bf16::from_bits(bits).to_f32()),
        (Meaning::Float, _) => {
            let value = float(value);
            u64::from(if value.is_nan() { NAN_HALF } else { f16::from_f32(value).to_bits() })
        }
        (Meaning::Brain, _) => {
            let value = float(value);
            u64::from(if value.is_nan() { NAN_HALF } else { bf16::from_f32(value).to_bits() })
        }
        (_, Meaning::Signed) => signed(value, of.width).cast_unsigned() & mask(into.width),
        _ => value & mask(of.width) & mask(into.width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U32: Type = Type { meaning: Meaning::Unsigned, width: 32 };
    const S32: Type = Type { meaning: Meaning::Signed, width: 32 };
    const U64: Type = Type { meaning: Meaning::Unsigned, width: 64 };
    const S16: Type = Type { meaning: Meaning::Signed, width: 16 };
    const S64: Type = Type { meaning: Meaning::Signed, width: 64 };
    const F16: Type = Type { meaning: Meaning::Float, width: 16 };
    const F32: Type = Type { meaning: Meaning::Float, width: 32 };
    const BF16: Type = Type { meaning: Meaning::Brain, width: 16 };

    fn bits(value: f32) -> u64 {
        u64::from(value.to_bits())
    }

    #[test]
    fn integers_wrap_at_their_width() {
        assert_eq!(binary(Binary::Add, U32, 0xffff_ffff, 2), 1);
        assert_eq!(binary(Binary::Subtract, U32, 0, 1), 0xffff_ffff);
        assert_eq!(binary(Binary::Multiply, U32, 0x1_0001, 0x1_0001), 0x2_0001);
        assert_eq!(unary(Unary::Negate, S32, 1), 0xffff_ffff);
        assert_eq!(unary(Unary::Not, U32, 0), 0xffff_ffff);
    }

    #[test]
    fn products_have_a_high_half() {
        assert_eq!(binary(Binary::MultiplyHigh, U64, u64::MAX, u64::MAX), u64::MAX - 1);
        assert_eq!(binary(Binary::MultiplyHigh, S32, 0xffff_ffff, 1), 0xffff_ffff);
        assert_eq!(multiply_wide(U32, 0xffff_ffff, 2), 0x1_ffff_fffe);
        assert_eq!(multiply_wide(S32, 0xffff_ffff, 2), u64::MAX - 1);
        assert_eq!(multiply_add(U32, 3, 4, 5), 17);
    }

    #[test]
    fn shifts_end_at_the_width_and_keep_a_sign() {
        assert_eq!(binary(Binary::ShiftLeft, U32, 1, 31), 0x8000_0000);
        assert_eq!(binary(Binary::ShiftLeft, U32, 1, 32), 0);
        assert_eq!(binary(Binary::ShiftRight, U32, 0x8000_0000, 99), 0);
        assert_eq!(binary(Binary::ShiftRight, S32, 0x8000_0000, 99), 0xffff_ffff);
    }

    #[test]
    fn extremes_and_comparisons_know_the_sign() {
        assert_eq!(binary(Binary::Minimum, S32, 0xffff_ffff, 1), 0xffff_ffff);
        assert_eq!(binary(Binary::Maximum, U32, 0xffff_ffff, 1), 0xffff_ffff);
        assert!(compare(Comparison::Less, S32, 0xffff_ffff, 0));
        assert!(compare(Comparison::Greater, U32, 0xffff_ffff, 0));
        assert!(compare(Comparison::NotEqual, U32, 1, 0));
        assert!(
            compare(Comparison::GreaterOrEqual, S32, 1, 1) && compare(Comparison::LessOrEqual, S32, 1, 1)
        );
    }

    #[test]
    fn a_nan_is_neither_equal_nor_less_and_has_the_hardwares_bits() {
        let nan = bits(f32::NAN);
        assert!(!compare(Comparison::Equal, F32, nan, nan));
        assert!(compare(Comparison::NotNumbers, F32, nan, 0) && !compare(Comparison::Numbers, F32, nan, 0));
        assert!(compare(Comparison::Numbers, F32, 0, 0) && !compare(Comparison::NotNumbers, F32, 0, 0));
        assert_eq!(binary(Binary::Add, F32, nan, 0), 0x7fff_ffff);
        assert_eq!(convert(F16, F32, nan), 0x7fff);
        assert_eq!(convert(BF16, F32, nan), 0x7fff);
    }

    #[test]
    fn floats_round_once_and_keep_subnormals() {
        assert_eq!(binary(Binary::Add, F32, bits(1.0), bits(2.0)), bits(3.0));
        assert_eq!(binary(Binary::Subtract, F32, bits(1.0), bits(2.0)), bits(-1.0));
        assert_eq!(binary(Binary::Multiply, F32, bits(f32::MIN_POSITIVE), bits(0.5)), 0x0040_0000);
        let (a, b) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON);
        assert_eq!(multiply_add(F32, bits(a), bits(b), bits(-1.0)), bits(a.mul_add(b, -1.0)));
    }

    #[test]
    fn halves_round_to_nearest_even() {
        // 2049 lies between 2048 and 2050, 2051 between 2050 and 2052: each goes to the even one.
        assert_eq!(convert(F16, F32, bits(2049.0)), convert(F16, F32, bits(2048.0)));
        assert_eq!(convert(F16, F32, bits(2051.0)), convert(F16, F32, bits(2052.0)));
        assert_eq!(convert(F16, F32, bits(65520.0)), 0x7c00);
        assert_eq!(convert(BF16, F32, 0x3f80_8000), 0x3f80);
        assert_eq!(convert(BF16, F32, 0x3f81_8000), 0x3f82);
        assert_eq!(convert(F32, F16, 0x0001), bits(2.0_f32.powi(-24)));
        assert_eq!(convert(F32, BF16, 0x3f80), bits(1.0));
    }

    #[test]
    fn integers_are_cut_and_extended() {
        assert_eq!(convert(U64, S32, 0xffff_ffff), u64::MAX);
        assert_eq!(convert(U64, U32, 0xffff_ffff), 0xffff_ffff);
        assert_eq!(convert(Type { meaning: Meaning::Unsigned, width: 16 }, U32, 0x1_2345), 0x2345);
        assert_eq!(convert(S64, S16, 0x8000), 0xffff_ffff_ffff_8000);
    }
}
