//! What the algorithms need of a vector register.
//!
//! [`Lanes`] compute, a [`Vector`] also moves to and from memory. The one invariant that matters: a value of
//! a vector type exists only on a machine that has its instruction set, because the only way to come by one
//! is [`Vector::load`], whose caller vouches for that. Therefore arithmetic on a value is safe.

#![allow(unsafe_code)]

/// Several numbers that are computed with at once.
///
/// Lanes are independent of one another and each gives the bits that the crate promises for its type.
pub(crate) trait Lanes: Copy {
    /// `self + other`; integers wrap.
    fn add(self, other: Self) -> Self;
    /// `self * other`; integers wrap.
    fn multiply(self, other: Self) -> Self;
    /// The lesser of the two; -0 is less than +0. If one is NaN, some NaN.
    fn minimum(self, other: Self) -> Self;
    /// The greater of the two; -0 is less than +0. If one is NaN, some NaN.
    fn maximum(self, other: Self) -> Self;
    /// `self / divisor`: floats round once, integers go toward zero.
    fn divide(self, divisor: usize) -> Self;
    /// The same numbers with every NaN made the canonical quiet one.
    fn canonical(self) -> Self;
}

/// Lanes of integers.
pub(crate) trait BitLanes: Lanes {
    /// Bitwise and.
    fn and(self, other: Self) -> Self;
    /// Bitwise or.
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
}

/// The largest vector of any instruction set, in bytes.
const LARGEST: usize = 64;

/// Lanes that can be loaded from memory and stored to it, at any alignment.
pub(crate) trait Vector: Lanes {
    /// The size of one element in memory.
    const ELEMENT_BYTES: usize;
    /// The size of all elements of the vector in memory: at most 64.
    const BYTES: usize;

    /// Loads `BYTES` bytes.
    ///
    /// # Safety
    /// The machine has the instruction set of this type; `BYTES` bytes at `pointer` may be read.
    unsafe fn load(pointer: *const u8) -> Self;

    /// Stores `BYTES` bytes.
    ///
    /// # Safety
    /// `BYTES` bytes at `pointer` may be written.
    unsafe fn store(self, pointer: *mut u8);

    /// Loads the first `count` elements and touches no byte behind them; the other lanes hold zeros.
    ///
    /// # Safety
    /// As for [`Vector::load`], for `count` elements, which are less than a vector has.
    #[inline(always)]
    unsafe fn load_first(pointer: *const u8, count: usize) -> Self {
        const { assert!(Self::BYTES <= LARGEST) };
        let mut buffer = [0_u8; LARGEST];
        // SAFETY: the caller vouches for `count` elements behind `pointer`, and fewer than `BYTES` bytes fit
        // the buffer (asserted above). The buffer is local, so the two do not overlap; loading a whole
        // vector from its start stays inside it.
        unsafe {
            core::ptr::copy_nonoverlapping(pointer, buffer.as_mut_ptr(), count * Self::ELEMENT_BYTES);
            Self::load(buffer.as_ptr())
        }
    }

    /// Stores the first `count` elements and touches no byte behind them.
    ///
    /// # Safety
    /// As for [`Vector::store`], for `count` elements, which are less than a vector has.
    #[inline(always)]
    unsafe fn store_first(self, pointer: *mut u8, count: usize) {
        const { assert!(Self::BYTES <= LARGEST) };
        let mut buffer = [0_u8; LARGEST];
        // SAFETY: a vector fits the buffer (asserted above); the caller vouches for `count` elements behind
        // `pointer`, which the local buffer does not overlap.
        unsafe {
            self.store(buffer.as_mut_ptr());
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), pointer, count * Self::ELEMENT_BYTES);
        }
    }
}

/// Stores that bypass the caches on their way to memory.
pub(crate) trait Streaming: Vector {
    /// Whether [`Streaming::stream_line`] is anything else than a plain copy.
    const STREAMS: bool;

    /// Copies 64 bytes past the caches, to become visible in any order until [`Streaming::fence`].
    ///
    /// # Safety
    /// The machine has the instruction set of this type. 64 bytes may be read at `source` and written at
    /// `destination`, which is a multiple of 64.
    unsafe fn stream_line(destination: *mut u8, source: *const u8);

    /// Orders all streamed stores before any later store.
    ///
    /// # Safety
    /// The machine has the instruction set of this type.
    unsafe fn fence();
}
