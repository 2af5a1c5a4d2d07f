//! AVX-512 with its F, BW and DQ parts: vectors of 64 bytes, a whole cache line, and masks for the rest.

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

/// AVX-512 F, BW and DQ.
pub(crate) struct Avx512;

switched_on!(Avx512, "avx512f,avx512bw,avx512dq,avx2,f16c");

/// Loads and stores of a part of a vector, by mask: lanes outside of it touch no memory.
macro_rules! masked_moves {
    ($mask:ty, $load:ident, $store:ident) => {
        #[inline(always)]
        unsafe fn load_first(pointer: *const u8, count: usize) -> Self {
            let mask: $mask = ((1_u64 << count) - 1) as $mask;
            // SAFETY: the caller vouches for the instruction set and for `count` readable elements, fewer
            // than a vector has; the mask has that many bits set, and masked lanes read nothing.
            Self(unsafe { $load(mask, pointer.cast()) })
        }

        #[inline(always)]
        unsafe fn store_first(self, pointer: *mut u8, count: usize) {
            let mask: $mask = ((1_u64 << count) - 1) as $mask;
            // SAFETY: `self` was loaded, so the instruction set is there; the caller vouches for `count`
            // writable elements, fewer than a vector has; masked lanes write nothing.
            unsafe { $store(pointer.cast(), mask, self.0) };
        }
    };
}

float_vector!(F32: f32, __m512, _mm512_set1_ps, _mm512_add_ps, _mm512_mul_ps, _mm512_div_ps,
    minimum_f32, maximum_f32, canonical_f32 {
    moves!(f32, __m512, _mm512_loadu_ps, _mm512_storeu_ps);
    masked_moves!(__mmask16, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps);
});
float_vector!(F64: f64, __m512d, _mm512_set1_pd, _mm512_add_pd, _mm512_mul_pd, _mm512_div_pd,
    minimum_f64, maximum_f64, canonical_f64 {
    moves!(f64, __m512d, _mm512_loadu_pd, _mm512_storeu_pd);
    masked_moves!(__mmask8, _mm512_maskz_loadu_pd, _mm512_mask_storeu_pd);
});

macro_rules! integers {
    ($($name:ident: $element:ty, $add:ident, $multiply:ident, $minimum:ident, $maximum:ident,
       $mask:ty, $load:ident, $store:ident;)+) => {$(
        integer_vector!($name: $element, __m512i, $add, $multiply, $minimum, $maximum {
            moves!($element, __m512i, _mm512_loadu_si512, _mm512_storeu_si512);
            masked_moves!($mask, $load, $store);
        });
    )+};
}

integers! {
    I8: i8, _mm512_add_epi8, multiply_8, _mm512_min_epi8, _mm512_max_epi8,
        __mmask64, _mm512_maskz_loadu_epi8, _mm512_mask_storeu_epi8;
    U8: u8, _mm512_add_epi8, multiply_8, _mm512_min_epu8, _mm512_max_epu8,
        __mmask64, _mm512_maskz_loadu_epi8, _mm512_mask_storeu_epi8;
    I16: i16, _mm512_add_epi16, _mm512_mullo_epi16, _mm512_min_epi16, _mm512_max_epi16,
        __mmask32, _mm512_maskz_loadu_epi16, _mm512_mask_storeu_epi16;
    U16: u16, _mm512_add_epi16, _mm512_mullo_epi16, _mm512_min_epu16, _mm512_max_epu16,
        __mmask32, _mm512_maskz_loadu_epi16, _mm512_mask_storeu_epi16;
    I32: i32, _mm512_add_epi32, _mm512_mullo_epi32, _mm512_min_epi32, _mm512_max_epi32,
        __mmask16, _mm512_maskz_loadu_epi32, _mm512_mask_storeu_epi32;
    U32: u32, _mm512_add_epi32, _mm512_mullo_epi32, _mm512_min_epu32, _mm512_max_epu32,
        __mmask16, _mm512_maskz_loadu_epi32, _mm512_mask_storeu_epi32;
    I64: i64, _mm512_add_epi64, _mm512_mullo_epi64, _mm512_min_epi64, _mm512_max_epi64,
        __mmask8, _mm512_maskz_loadu_epi64, _mm512_mask_storeu_epi64;
    U64: u64, _mm512_add_epi64, _mm512_mullo_epi64, _mm512_min_epu64, _mm512_max_epu64,
        __mmask8, _mm512_maskz_loadu_epi64, _mm512_mask_storeu_epi64;
}

bit_vector!(U8, U16, U32, U64: _mm512_and_si512, _mm512_or_si512, _mm512_xor_si512);

// VMINPS and VMAXPS give the second operand where the two are equal or one is NaN. Asked both ways, they
// give both zeros of a pair: `or` finds the negative one, `and` the positive one. With a NaN they give both
// operands: `or` of a NaN with anything is a NaN; `and` is not, so a NaN is laid over it by mask.

macro_rules! float_functions {
    ($register:ty: $minimum:ident, $maximum:ident, $canonical:ident, $nan:expr;
     $min:ident, $max:ident, $and:ident, $or:ident, $compare:ident, $pick:ident, $splat:ident) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512dq")]
        fn $minimum(a: $register, b: $register) -> $register {
            $or($min(a, b), $min(b, a))
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512dq")]
        fn $maximum(a: $register, b: $register) -> $register {
            let greater = $and($max(a, b), $max(b, a));
            $pick(greater, $compare::<_CMP_UNORD_Q>(a, b), $splat($nan))
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512dq")]
        fn $canonical(a: $register) -> $register {
            $pick(a, $compare::<_CMP_UNORD_Q>(a, a), $splat($nan))
        }
    };
}

float_functions!(__m512: minimum_f32, maximum_f32, canonical_f32, f32::from_bits(0x7fc0_0000);
    _mm512_min_ps, _mm512_max_ps, _mm512_and_ps, _mm512_or_ps, _mm512_cmp_ps_mask, _mm512_mask_mov_ps,
    _mm512_set1_ps);
float_functions!(__m512d: minimum_f64, maximum_f64, canonical_f64, f64::from_bits(0x7ff8_0000_0000_0000);
    _mm512_min_pd, _mm512_max_pd, _mm512_and_pd, _mm512_or_pd, _mm512_cmp_pd_mask, _mm512_mask_mov_pd,
    _mm512_set1_pd);

/// The low bytes of the products: of 16-bit products for even bytes, and shifted down and up for odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply_8(a: __m512i, b: __m512i) -> __m512i {
    const ODD_BYTES: __mmask64 = 0xaaaa_aaaa_aaaa_aaaa;
    let even = _mm512_mullo_epi16(a, b);
    let odd = _mm512_mullo_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
    _mm512_mask_blend_epi8(ODD_BYTES, even, _mm512_slli_epi16::<8>(odd))
}

/// The lower sixteen elements in the first vector, the upper sixteen in the second.
impl Vector for Halves<F32, Ieee> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX-512 and for 64 readable bytes, of which each load takes 32 at
        // any alignment.
        unsafe {
            let lower = _mm256_loadu_si256(pointer.cast());
            let upper = _mm256_loadu_si256(pointer.add(32).cast());
            Halves::new(F32(_mm512_cvtph_ps(lower)), F32(_mm512_cvtph_ps(upper)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so AVX-512 is there; the caller vouches for 64 writable bytes, of which
        // each store takes 32 at any alignment.
        unsafe {
            let lower = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.first.0);
            let upper = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.second.0);
            _mm256_storeu_si256(pointer.cast(), lower);
            _mm256_storeu_si256(pointer.add(32).cast(), upper);
        }
    }
}

/// Even elements in the first vector, odd ones in the second: either is a shift or a mask away from f32.
impl Vector for Halves<F32, Brain> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX-512 and for 64 readable bytes at any alignment.
        unsafe { widened_pairs(_mm512_loadu_si512(pointer.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so AVX-512 is there; the caller vouches for 64 writable bytes at any
        // alignment.
        unsafe { _mm512_storeu_si512(pointer.cast(), narrowed_pairs(self.first.0, self.second.0)) };
    }

    #[inline(always)]
    unsafe fn load_first(pointer: *const u8, count: usize) -> Self {
        // SAFETY: the caller vouches for AVX-512 and for `count` readable elements, fewer than 32; the mask
        // has that many bits set, and masked lanes read nothing.
        unsafe { widened_pairs(_mm512_maskz_loadu_epi16((1_u32 << count) - 1, pointer.cast())) }
    }

    #[inline(always)]
    unsafe fn store_first(self, pointer: *mut u8, count: usize) {
        // SAFETY: `self` was loaded, so AVX-512 is there; the caller vouches for `count` writable elements,
        // fewer than 32; masked lanes write nothing.
        unsafe {
            let pairs = narrowed_pairs(self.first.0, self.second.0);
            _mm512_mask_storeu_epi16(pointer.cast(), (1_u32 << count) - 1, pairs);
        }
    }
}

/// Splits pairs of bf16 into even and odd ones, widened.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened_pairs(pairs: __m512i) -> Halves<F32, Brain> {
    let even = _mm512_slli_epi32::<16>(pairs);
    let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    Halves::new(F32(_mm512_castsi512_ps(even)), F32(_mm512_castsi512_ps(odd)))
}

/// Rounds even and odd elements to bf16 and puts them side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn narrowed_pairs(even: __m512, odd: __m512) -> __m512i {
    const UPPER_HALVES: __mmask32 = 0xaaaa_aaaa;
    let even = _mm512_srli_epi32::<16>(rounded_to_upper_half(even));
    _mm512_mask_blend_epi16(UPPER_HALVES, even, rounded_to_upper_half(odd))
}

/// Rounds to nearest even in the upper 16 bits; the lower ones are left over. Integer arithmetic, as the
/// processor's own conversion flushes subnormals.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounded_to_upper_half(a: __m512) -> __m512i {
    let bits = _mm512_castps_si512(a);
    let is_odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), is_odd)
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
                "vmovdqu64 zmm0, [{source}]",
                "vmovntdq [{destination}], zmm0",
                source = in(reg) source,
                destination = in(reg) destination,
                out("zmm0") _,
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
