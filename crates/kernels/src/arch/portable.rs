//! Vectors that are plain arrays of 16 bytes.
//!
//! They run everywhere, and the compiler turns most of their loops into whatever vectors the architecture
//! has by default. They are also the reference that the others are easiest compared with.

#![allow(unsafe_code)]

use crate::generic::block::Block;
use crate::generic::halves::{Brain, Halves, Ieee};
use crate::generic::instruction_set::InstructionSet;
use crate::generic::operation::Operation;
use crate::generic::scalar::{BitScalar, Scalar, narrow_brain, narrow_ieee, widen_brain, widen_ieee};
use crate::generic::vector::{BitLanes, Lanes, Streaming, Vector};
use crate::generic::{copy, reduce};

/// `N` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Array<T, const N: usize>([T; N]);

impl<T: Copy, const N: usize> Array<T, N> {
    #[inline(always)]
    fn each(mut self, compute: impl Fn(T) -> T) -> Self {
        for number in &mut self.0 {
            *number = compute(*number);
        }
        self
    }

    #[inline(always)]
    fn with_each(mut self, other: Self, compute: impl Fn(T, T) -> T) -> Self {
        for (number, other) in self.0.iter_mut().zip(other.0) {
            *number = compute(*number, other);
        }
        self
    }
}

impl<T: Scalar, const N: usize> Lanes for Array<T, N> {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with_each(other, T::add)
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.with_each(other, T::multiply)
    }

    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        self.with_each(other, T::minimum)
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        self.with_each(other, T::maximum)
    }

    #[inline(always)]
    fn divide(self, divisor: usize) -> Self {
        self.each(|number| number.divide(divisor))
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        self.each(T::canonical)
    }
}

impl<T: BitScalar, const N: usize> BitLanes for Array<T, N> {
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.with_each(other, T::and)
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.with_each(other, T::or)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.with_each(other, T::xor)
    }
}

impl<T: Scalar, const N: usize> Vector for Array<T, N> {
    const ELEMENT_BYTES: usize = size_of::<T>();
    const BYTES: usize = size_of::<[T; N]>();

    #[inline(always)]
    unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for `BYTES` readable bytes, which are the size of the array; the read
        // demands no alignment, and any bits are numbers.
        Array(unsafe { pointer.cast::<[T; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: the caller vouches for `BYTES` writable bytes, which are the size of the array; the write
        // demands no alignment.
        unsafe { pointer.cast::<[T; N]>().write_unaligned(self.0) };
    }
}

impl<const N: usize> Streaming for Array<u8, N> {
    const STREAMS: bool = false;

    #[inline(always)]
    unsafe fn stream_line(destination: *mut u8, source: *const u8) {
        // SAFETY: the caller vouches for 64 bytes at both pointers; they do not overlap in a copy.
        unsafe { core::ptr::copy_nonoverlapping(source, destination, 64) };
    }

    #[inline(always)]
    unsafe fn fence() {}
}

/// Eight 16-bit floats as two arrays of four.
macro_rules! halves {
    ($($format:ident: $widen:ident, $narrow:ident;)+) => {$(
        impl Vector for Halves<Array<f32, 4>, $format> {
            const ELEMENT_BYTES: usize = 2;
            const BYTES: usize = 16;

            #[inline(always)]
            unsafe fn load(pointer: *const u8) -> Self {
                // SAFETY: the caller vouches for `BYTES` readable bytes, the size of the array; the read
                // demands no alignment, and any bits are numbers.
                let [a, b, c, d, e, f, g, h] = unsafe { pointer.cast::<[u16; 8]>().read_unaligned() };
                Halves::new(
                    Array([$widen(a), $widen(b), $widen(c), $widen(d)]),
                    Array([$widen(e), $widen(f), $widen(g), $widen(h)]),
                )
            }

            #[inline(always)]
            unsafe fn store(self, pointer: *mut u8) {
                let [a, b, c, d] = self.first.0.map($narrow);
                let [e, f, g, h] = self.second.0.map($narrow);
                // SAFETY: the caller vouches for `BYTES` writable bytes, the size of the array; the write
                // demands no alignment.
                unsafe { pointer.cast::<[u16; 8]>().write_unaligned([a, b, c, d, e, f, g, h]) };
            }
        }
    )+};
}

halves! {
    Ieee: widen_ieee, narrow_ieee;
    Brain: widen_brain, narrow_brain;
}

/// Plain loops.
pub(crate) struct Portable;

impl InstructionSet for Portable {
    type F32 = Array<f32, 4>;
    type F64 = Array<f64, 2>;
    type F16 = Halves<Array<f32, 4>, Ieee>;
    type Bf16 = Halves<Array<f32, 4>, Brain>;
    type I8 = Array<i8, 16>;
    type I16 = Array<i16, 8>;
    type I32 = Array<i32, 4>;
    type I64 = Array<i64, 2>;
    type U8 = Array<u8, 16>;
    type U16 = Array<u16, 8>;
    type U32 = Array<u32, 4>;
    type U64 = Array<u64, 2>;

    unsafe fn reduce<V, O>(destinations: &[*mut u8], sources: &[*const u8], count: usize)
    where
        V: Vector,
        O: Operation<V> + Operation<Block<V>>,
    {
        // SAFETY: the caller's promises are those of `reduce`; there is nothing to switch on.
        unsafe { reduce::reduce::<V, O>(destinations, sources, count) };
    }

    unsafe fn copy(destination: *mut u8, source: *const u8, bytes: usize) {
        // SAFETY: the caller's promises are those of `copy`; there is nothing to switch on.
        unsafe { copy::copy::<Self::U8>(destination, source, bytes) };
    }

    unsafe fn copy_streaming(destination: *mut u8, source: *const u8, bytes: usize) {
        // SAFETY: the caller's promises are those of `copy_streaming`; there is nothing to switch on.
        unsafe { copy::copy_streaming::<Self::U8>(destination, source, bytes) };
    }
}
