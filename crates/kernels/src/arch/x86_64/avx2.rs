//! AVX2 with F16C: vectors of 32 bytes.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::macros::{bit_vector, by_intrinsic, float_vector, integer_vector, moves, switched_on};
use crate::generic::block::Block;
use crate::generic::halves::{Brain, Halves, Ieee};
use crate::generic::instruction_set::InstructionSet;
use crate::generic::operation::Operation;
use crate::generic::scalar::divide_each;
use crate::generic::vector::{BitLanes, Lanes, Streaming, Vector};
use crate::generic::{copy, reduce};

/// AVX2 with F16C.
pub(crate) struct Avx2;

switched_on!(Avx2, "avx2,f16c");

float_vector!(F32: f32, __m256, _mm256_set1_ps, _mm256_add_ps, _mm256_mul_ps, _mm256_div_ps,
    minimum_f32, maximum_f32, canonical_f32 { moves!(f32, __m256, _mm256_loadu_ps, _mm256_storeu_ps); });
float_vector!(F64: f64, __m256d, _mm256_set1_pd, _mm256_add_pd, _mm256_mul_pd, _mm256_div_pd,
    minimum_f64, maximum_f64, canonical_f64 { moves!(f64, __m256d, _mm256_loadu_pd, _mm256_storeu_pd); });

macro_rules! integers {
    ($($name:ident: $element:ty, $add:ident, $multiply:ident, $minimum:ident, $maximum:ident;)+) => {$(
        integer_vector!($name: $element, __m256i, $add, $multiply, $minimum, $maximum {
            moves!($element, __m256i, _mm256_loadu_si256, _mm256_storeu_si256);
        });
    )+};
}

integers! {
    I8: i8, _mm256_add_epi8, multiply_8, _mm256_min_epi8, _mm256_max_epi8;
    U8: u8, _mm256_add_epi8, multiply_8, _mm256_min_epu8, _mm256_max_epu8;
    I16: i16, _mm256_add_epi16, _mm256_mullo_epi16, _mm256_min_epi16, _mm256_max_epi16;
    U16: u16, _mm256_add_epi16, _mm256_mullo_epi16, _mm256_min_epu16, _mm256_max_epu16;
    I32: i32, _mm256_add_epi32, _mm256_mullo_epi32, _mm256_min_epi32, _mm256_max_epi32;
    U32: u32, _mm256_add_epi32, _mm256_mullo_epi32, _mm256_min_epu32, _mm256_max_epu32;
    I64: i64, _mm256_add_epi64, multiply_64, minimum_i64, maximum_i64;
    U64: u64, _mm256_add_epi64, multiply_64, minimum_u64, maximum_u64;
}

bit_vector!(U8, U16, U32, U64: _mm256_and_si256, _mm256_or_si256, _mm256_xor_si256);

// MINPS and MAXPS give the second operand where the two are equal or one is NaN. Asked both ways, they give
// both zeros of a pair: `or` finds the negative one, `and` the positive one. With a NaN they give both
// operands: `or` of a NaN with anything is a NaN; `and` is not, so the mask of NaNs is laid over it.

macro_rules! float_functions {
    ($register:ty: $minimum:ident, $maximum:ident, $canonical:ident, $nan:expr;
     $min:ident, $max:ident, $and:ident, $or:ident, $compare:ident, $blend:ident, $splat:ident) => {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn $minimum(a: $register, b: $register) -> $register {
            $or($min(a, b), $min(b, a))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $maximum(a: $register, b: $register) -> $register {
            $or($and($max(a, b), $max(b, a)), $compare::<_CMP_UNORD_Q>(a, b))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $canonical(a: $register) -> $register {
            $blend(a, $splat($nan), $compare::<_CMP_UNORD_Q>(a, a))
        }
    };
}

float_functions!(__m256: minimum_f32, maximum_f32, canonical_f32, f32::from_bits(0x7fc0_0000);
    _mm256_min_ps, _mm256_max_ps, _mm256_and_ps, _mm256_or_ps, _mm256_cmp_ps, _mm256_blendv_ps,
    _mm256_set1_ps);
float_functions!(__m256d: minimum_f64, maximum_f64, canonical_f64, f64::from_bits(0x7ff8_0000_0000_0000);
    _mm256_min_pd, _mm256_max_pd, _mm256_and_pd, _mm256_or_pd, _mm256_cmp_pd, _mm256_blendv_pd,
    _mm256_set1_pd);

/// The low bytes of the products: of 16-bit products for even bytes, and shifted down and up for odd ones.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_8(a: __m256i, b: __m256i) -> __m256i {
    let even = _mm256_mullo_epi16(a, b);
    let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b));
    let even = _mm256_and_si256(even, _mm256_set1_epi16(0xff));
    _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd))
}

/// The low 64 bits of the products, from three products of 32-bit halves.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_64(a: __m256i, b: __m256i) -> __m256i {
    let cross = _mm256_add_epi64(
        _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), b),
        _mm256_mul_epu32(a, _mm256_srli_epi64::<32>(b)),
    );
    _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64::<32>(cross))
}

#[inline]
#[target_feature(enable = "avx2")]
fn minimum_i64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn maximum_i64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b))
}

/// Whether `a > b` as unsigned: the signed comparison after both changed their sign bits.
#[inline]
#[target_feature(enable = "avx2")]
fn is_greater_u64(a: __m256i, b: __m256i) -> __m256i {
    let sign = _mm256_set1_epi64x(i64::MIN);
    _mm256_cmpgt_epi64(_mm256_xor_si256(a, sign), _mm256_xor_si256(b, sign))
}

#[inline]
#[target_feature(enable = "avx2")]
fn minimum_u64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(a, b, is_greater_u64(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn maximum_u64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(b, a, is_greater_u64(a, b))
}

/// The lower eight elements in the first vector, the upper eight in the second.
impl Vector for Halves<F32, Ieee> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for F16C and for 32 readable bytes, of which each load takes 16 at
        // any alignment.
        unsafe {
            let lower = _mm_loadu_si128(pointer.cast());
            let upper = _mm_loadu_si128(pointer.add(16).cast());
            Halves::new(F32(_mm256_cvtph_ps(lower)), F32(_mm256_cvtph_ps(upper)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so F16C is there; the caller vouches for 32 writable bytes, of which
        // each store takes 16 at any alignment.
        unsafe {
            let lower = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.first.0);
            let upper = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.second.0);
            _mm_storeu_si128(pointer.cast(), lower);
            _mm_storeu_si128(pointer.add(16).cast(), upper);
        }
    }
}

/// Even elements in the first vector, odd ones in the second: either is a shift or a mask away from f32.
impl Vector for Halves<F32, Brain> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX2 and for 32 readable bytes at any alignment.
        unsafe {
            let pairs = _mm256_loadu_si256(pointer.cast());
            let even = _mm256_slli_epi32::<16>(pairs);
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            Halves::new(F32(_mm256_castsi256_ps(even)), F32(_mm256_castsi256_ps(odd)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so AVX2 is there; the caller vouches for 32 writable bytes at any
        // alignment.
        unsafe {
            let even = _mm256_srli_epi32::<16>(rounded_to_upper_half(self.first.0));
            let odd = rounded_to_upper_half(self.second.0);
            _mm256_storeu_si256(pointer.cast(), _mm256_blend_epi16::<0b1010_1010>(even, odd));
        }
    }
}

/// Rounds to nearest even in the upper 16 bits; the lower ones are left over. Integer arithmetic, as the
/// processor's own conversion flushes subnormals.
#[inline]
#[target_feature(enable = "avx2")]
fn rounded_to_upper_half(a: __m256) -> __m256i {
    let bits = _mm256_castps_si256(a);
    let is_odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), is_odd)
}

impl Streaming for U8 {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn stream_line(destination: *mut u8, source: *const u8) {
        // SAFETY: the caller vouches for the instruction set, for 64 readable and 64 writable bytes and for
        // an aligned destination. Assembly, as the compiler does not model stores that are not ordered;
        // `copy_streaming` orders them with `fence` before it returns.
        unsafe {
            asm!(
                "vmovdqu ymm0, [{source}]",
                "vmovdqu ymm1, [{source} + 32]",
                "vmovntdq [{destination}], ymm0",
                "vmovntdq [{destination} + 32], ymm1",
                source = in(reg) source,
                destination = in(reg) destination,
                out("ymm0") _,
                out("ymm1") _,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: every x86-64 processor has SFENCE, which touches no memory.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }
}
