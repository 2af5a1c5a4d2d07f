//! Advanced SIMD: vectors of 16 bytes.
//!
//! FMIN and FMAX already let NaN win and tell the zeros apart, so floats need little here. The conversions
//! between f16 and f32 are part of the base architecture, but their intrinsics are younger than our oldest
//! toolchain, hence the assembly.
//!
//! A streaming copy is a plain copy here: the architecture orders no store by itself, so the release with
//! which a caller publishes has to order them all anyway.

#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use crate::generic::block::Block;
use crate::generic::halves::{Brain, Halves, Ieee};
use crate::generic::instruction_set::InstructionSet;
use crate::generic::operation::Operation;
use crate::generic::scalar::divide_each;
use crate::generic::vector::{BitLanes, Lanes, Streaming, Vector};
use crate::generic::{copy, reduce};

/// Advanced SIMD.
pub(crate) struct Neon;

impl InstructionSet for Neon {
    type F32 = F32;
    type F64 = F64;
    type F16 = Halves<F32, Ieee>;
    type Bf16 = Halves<F32, Brain>;
    type I8 = I8;
    type I16 = I16;
    type I32 = I32;
    type I64 = I64;
    type U8 = U8;
    type U16 = U16;
    type U32 = U32;
    type U64 = U64;

    #[target_feature(enable = "neon")]
    unsafe fn reduce<V, O>(destinations: &[*mut u8], sources: &[*const u8], count: usize)
    where
        V: Vector,
        O: Operation<V> + Operation<Block<V>>,
    {
        // SAFETY: the caller's promises are those of `reduce`, which is inlined here.
        unsafe { reduce::reduce::<V, O>(destinations, sources, count) };
    }

    #[target_feature(enable = "neon")]
    unsafe fn copy(destination: *mut u8, source: *const u8, bytes: usize) {
        // SAFETY: the caller's promises are those of `copy`, which is inlined here.
        unsafe { copy::copy::<U8>(destination, source, bytes) };
    }

    #[target_feature(enable = "neon")]
    unsafe fn copy_streaming(destination: *mut u8, source: *const u8, bytes: usize) {
        // SAFETY: the caller's promises are those of `copy_streaming`, which is inlined here.
        unsafe { copy::copy_streaming::<U8>(destination, source, bytes) };
    }
}

/// A method with one intrinsic for a body.
macro_rules! by_intrinsic {
    ($name:ident, $intrinsic:expr) => {
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            // SAFETY: `self` was loaded, so the machine has Advanced SIMD; no memory is touched.
            Self(unsafe { $intrinsic(self.0, other.0) })
        }
    };
}

/// A vector with its moves and the arithmetic that one intrinsic each can do.
macro_rules! vectors {
    ($($name:ident: $element:ty, $register:ty, $load:ident, $store:ident, $add:ident, $multiply:ident,
       $minimum:ident, $maximum:ident { $($others:tt)* })+) => {$(
        /// A register of numbers.
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        impl Lanes for $name {
            by_intrinsic!(add, $add);
            by_intrinsic!(multiply, $multiply);
            by_intrinsic!(minimum, $minimum);
            by_intrinsic!(maximum, $maximum);
            $($others)*
        }

        impl Vector for $name {
            const ELEMENT_BYTES: usize = size_of::<$element>();
            const BYTES: usize = size_of::<$register>();

            #[inline(always)]
            unsafe fn load(pointer: *const u8) -> Self {
                // SAFETY: the caller vouches for Advanced SIMD and for 16 readable bytes; the intrinsic is a
                // load of a plain register, which demands no alignment.
                Self(unsafe { $load(pointer.cast()) })
            }

            #[inline(always)]
            unsafe fn store(self, pointer: *mut u8) {
                // SAFETY: `self` was loaded, so Advanced SIMD is there; the caller vouches for 16 writable
                // bytes; the intrinsic demands no alignment.
                unsafe { $store(pointer.cast(), self.0) };
            }
        }
    )+};
}

/// Division and the canonical NaN of floats.
macro_rules! float_rest {
    ($element:ty, $divide:ident, $splat:ident, $equal:ident, $select:ident, $nan:literal) => {
        #[inline(always)]
        fn divide(self, divisor: usize) -> Self {
            // SAFETY: `self` was loaded, so the machine has Advanced SIMD; no memory is touched.
            Self(unsafe { $divide(self.0, $splat(divisor as $element)) })
        }

        #[inline(always)]
        fn canonical(self) -> Self {
            // Only a NaN differs from itself.
            // SAFETY: as above.
            Self(unsafe { $select($equal(self.0, self.0), self.0, $splat(<$element>::from_bits($nan))) })
        }
    };
}

vectors! {
    F32: f32, float32x4_t, vld1q_f32, vst1q_f32, vaddq_f32, vmulq_f32, vminq_f32, vmaxq_f32 {
        float_rest!(f32, vdivq_f32, vdupq_n_f32, vceqq_f32, vbslq_f32, 0x7fc0_0000);
    }
    F64: f64, float64x2_t, vld1q_f64, vst1q_f64, vaddq_f64, vmulq_f64, vminq_f64, vmaxq_f64 {
        float_rest!(f64, vdivq_f64, vdupq_n_f64, vceqq_f64, vbslq_f64, 0x7ff8_0000_0000_0000);
    }
}

/// Division of integers, one by one, and nothing to do for NaNs.
macro_rules! integer_rest {
    ($element:ty, $register:ty) => {
        #[inline(always)]
        fn divide(self, divisor: usize) -> Self {
            // There is no vector instruction for the division of integers.
            type Numbers = [$element; 16 / size_of::<$element>()];
            // SAFETY: a register and an array of the same size, both without any invalid bits.
            let mut numbers = unsafe { std::mem::transmute::<$register, Numbers>(self.0) };
            divide_each(&mut numbers, divisor);
            // SAFETY: as above.
            Self(unsafe { std::mem::transmute::<Numbers, $register>(numbers) })
        }

        #[inline(always)]
        fn canonical(self) -> Self {
            self
        }
    };
}

macro_rules! integers {
    ($($name:ident: $element:ty, $register:ty, $load:ident, $store:ident, $add:ident, $multiply:ident,
       $minimum:ident, $maximum:ident;)+) => {
        vectors! {$(
            $name: $element, $register, $load, $store, $add, $multiply, $minimum, $maximum {
                integer_rest!($element, $register);
            }
        )+}
    };
}

integers! {
    I8: i8, int8x16_t, vld1q_s8, vst1q_s8, vaddq_s8, vmulq_s8, vminq_s8, vmaxq_s8;
    I16: i16, int16x8_t, vld1q_s16, vst1q_s16, vaddq_s16, vmulq_s16, vminq_s16, vmaxq_s16;
    I32: i32, int32x4_t, vld1q_s32, vst1q_s32, vaddq_s32, vmulq_s32, vminq_s32, vmaxq_s32;
    I64: i64, int64x2_t, vld1q_s64, vst1q_s64, vaddq_s64, multiply_i64, minimum_i64, maximum_i64;
    U8: u8, uint8x16_t, vld1q_u8, vst1q_u8, vaddq_u8, vmulq_u8, vminq_u8, vmaxq_u8;
    U16: u16, uint16x8_t, vld1q_u16, vst1q_u16, vaddq_u16, vmulq_u16, vminq_u16, vmaxq_u16;
    U32: u32, uint32x4_t, vld1q_u32, vst1q_u32, vaddq_u32, vmulq_u32, vminq_u32, vmaxq_u32;
    U64: u64, uint64x2_t, vld1q_u64, vst1q_u64, vaddq_u64, multiply_u64, minimum_u64, maximum_u64;
}

macro_rules! bits {
    ($($name:ident: $and:ident, $or:ident, $xor:ident;)+) => {$(
        impl BitLanes for $name {
            by_intrinsic!(and, $and);
            by_intrinsic!(or, $or);
            by_intrinsic!(xor, $xor);
        }
    )+};
}

bits! {
    U8: vandq_u8, vorrq_u8, veorq_u8;
    U16: vandq_u16, vorrq_u16, veorq_u16;
    U32: vandq_u32, vorrq_u32, veorq_u32;
    U64: vandq_u64, vorrq_u64, veorq_u64;
}

/// What there is no instruction for on lanes of 64 bits: products one by one, the lesser and the greater by
/// comparison and selection.
macro_rules! functions_of_64_bits {
    ($register:ty, $lane:ident, $splat:ident, $set:ident, $greater:ident, $select:ident:
     $multiply:ident, $minimum:ident, $maximum:ident) => {
        #[inline]
        #[target_feature(enable = "neon")]
        fn $multiply(a: $register, b: $register) -> $register {
            let lower = $lane::<0>(a).wrapping_mul($lane::<0>(b));
            let upper = $lane::<1>(a).wrapping_mul($lane::<1>(b));
            $set::<1>(upper, $splat(lower))
        }

        #[inline]
        #[target_feature(enable = "neon")]
        fn $minimum(a: $register, b: $register) -> $register {
            $select($greater(a, b), b, a)
        }

        #[inline]
        #[target_feature(enable = "neon")]
        fn $maximum(a: $register, b: $register) -> $register {
            $select($greater(a, b), a, b)
        }
    };
}

functions_of_64_bits!(int64x2_t, vgetq_lane_s64, vdupq_n_s64, vsetq_lane_s64, vcgtq_s64, vbslq_s64:
    multiply_i64, minimum_i64, maximum_i64);
functions_of_64_bits!(uint64x2_t, vgetq_lane_u64, vdupq_n_u64, vsetq_lane_u64, vcgtq_u64, vbslq_u64:
    multiply_u64, minimum_u64, maximum_u64);

/// The lower four elements in the first vector, the upper four in the second.
impl Vector for Halves<F32, Ieee> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        let (lower, upper): (float32x4_t, float32x4_t);
        // SAFETY: the caller vouches for Advanced SIMD, whose base has FCVTL, and for 16 readable bytes; the
        // load demands no alignment. The conversion computes from registers alone.
        unsafe {
            let narrow = vld1q_u16(pointer.cast());
            asm!(
                "fcvtl2 {upper:v}.4s, {narrow:v}.8h",
                "fcvtl {lower:v}.4s, {narrow:v}.4h",
                narrow = in(vreg) narrow,
                upper = out(vreg) upper,
                lower = lateout(vreg) lower,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        Halves::new(F32(lower), F32(upper))
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so Advanced SIMD is there, whose base has FCVTN; the conversion computes
        // from registers alone. The caller vouches for 16 writable bytes, at any alignment.
        unsafe {
            let narrow: uint16x8_t;
            asm!(
                "fcvtn {narrow:v}.4h, {lower:v}.4s",
                "fcvtn2 {narrow:v}.8h, {upper:v}.4s",
                lower = in(vreg) self.first.0,
                upper = in(vreg) self.second.0,
                narrow = out(vreg) narrow,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1q_u16(pointer.cast(), narrow);
        }
    }
}

/// Even elements in the first vector, odd ones in the second: either is a shift or a mask away from f32.
impl Vector for Halves<F32, Brain> {
    const ELEMENT_BYTES: usize = 2;
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for Advanced SIMD and for 16 readable bytes, at any alignment.
        unsafe {
            let pairs = vreinterpretq_u32_u8(vld1q_u8(pointer));
            let even = vshlq_n_u32::<16>(pairs);
            let odd = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
            Halves::new(F32(vreinterpretq_f32_u32(even)), F32(vreinterpretq_f32_u32(odd)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: `self` was loaded, so Advanced SIMD is there; the caller vouches for 16 writable bytes, at
        // any alignment.
        unsafe {
            let even = rounded_to_upper_half(self.first.0);
            let odd = rounded_to_upper_half(self.second.0);
            let pairs = vsriq_n_u32::<16>(odd, even);
            vst1q_u8(pointer, vreinterpretq_u8_u32(pairs));
        }
    }
}

/// Rounds to nearest even in the upper 16 bits; the lower ones are left over. Integer arithmetic, as not
/// every processor has a conversion.
#[inline]
#[target_feature(enable = "neon")]
fn rounded_to_upper_half(a: float32x4_t) -> uint32x4_t {
    let bits = vreinterpretq_u32_f32(a);
    let is_odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), is_odd)
}

impl Streaming for U8 {
    const STREAMS: bool = false;

    #[inline(always)]
    unsafe fn stream_line(destination: *mut u8, source: *const u8) {
        // SAFETY: the caller vouches for 64 bytes at both pointers; they do not overlap in a copy.
        unsafe { core::ptr::copy_nonoverlapping(source, destination, 64) };
    }

    #[inline(always)]
    unsafe fn fence() {}
}
