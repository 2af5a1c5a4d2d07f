//! Four vectors taken as one.
//!
//! Loops over a [`Block`] have four independent chains of arithmetic and one set of bounds for them. A block
//! is a vector like any other, so the algorithms need not know.

#![allow(unsafe_code)]

use super::vector::{BitLanes, Lanes, Vector};

/// Four vectors that lie behind one another in memory.
#[derive(Clone, Copy)]
pub(crate) struct Block<V>(V, V, V, V);

macro_rules! on_each_vector {
    ($($name:ident),+) => {$(
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            Block(
                self.0.$name(other.0),
                self.1.$name(other.1),
                self.2.$name(other.2),
                self.3.$name(other.3),
            )
        }
    )+};
}

impl<V: Lanes> Lanes for Block<V> {
    on_each_vector!(add, multiply, minimum, maximum);

    #[inline(always)]
    fn divide(self, divisor: usize) -> Self {
        Block(self.0.divide(divisor), self.1.divide(divisor), self.2.divide(divisor), self.3.divide(divisor))
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        Block(self.0.canonical(), self.1.canonical(), self.2.canonical(), self.3.canonical())
    }
}

impl<V: BitLanes> BitLanes for Block<V> {
    on_each_vector!(and, or, xor);
}

impl<V: Vector> Block<V> {
    /// The size of the four vectors in memory.
    pub(crate) const BYTES: usize = 4 * V::BYTES;

    /// Loads four vectors.
    ///
    /// # Safety
    /// The machine has the instruction set of `V`; four vectors at `pointer` may be read.
    #[inline(always)]
    pub(crate) unsafe fn load(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for four vectors, these are the four.
        unsafe {
            Block(
                V::load(pointer),
                V::load(pointer.add(V::BYTES)),
                V::load(pointer.add(2 * V::BYTES)),
                V::load(pointer.add(3 * V::BYTES)),
            )
        }
    }

    /// Stores four vectors.
    ///
    /// # Safety
    /// Four vectors at `pointer` may be written.
    #[inline(always)]
    pub(crate) unsafe fn store(self, pointer: *mut u8) {
        // SAFETY: the caller vouches for four vectors, these are the four.
        unsafe {
            self.0.store(pointer);
            self.1.store(pointer.add(V::BYTES));
            self.2.store(pointer.add(2 * V::BYTES));
            self.3.store(pointer.add(3 * V::BYTES));
        }
    }
}
