//! 16-bit floats: narrow in memory, f32 in registers.
//!
//! One vector of 16-bit floats becomes two of f32 when it is loaded and one again when it is stored. The one
//! invariant that matters: everything between is f32, so a fold of many sources rounds to 16 bits once.
//! Which elements go to which of the two vectors is the business of the load and the store of an instruction
//! set, as lanes never meet.

use std::marker::PhantomData;

use super::vector::Lanes;

/// IEEE half precision.
#[derive(Clone, Copy)]
pub(crate) struct Ieee;

/// Brain floating point.
#[derive(Clone, Copy)]
pub(crate) struct Brain;

/// 16-bit floats of the given format, widened to two vectors of f32.
#[derive(Clone, Copy)]
pub(crate) struct Halves<F32, Format> {
    pub(crate) first: F32,
    pub(crate) second: F32,
    format: PhantomData<Format>,
}

impl<F32, Format> Halves<F32, Format> {
    /// The two vectors that the elements were widened to.
    #[inline(always)]
    pub(crate) fn new(first: F32, second: F32) -> Self {
        Halves { first, second, format: PhantomData }
    }
}

macro_rules! on_both_vectors {
    ($($name:ident($($argument:ident)?)),+) => {$(
        #[inline(always)]
        fn $name(self $(, $argument: Self)?) -> Self {
            Halves::new(
                self.first.$name($($argument.first)?),
                self.second.$name($($argument.second)?),
            )
        }
    )+};
}

impl<F32: Lanes, Format: Copy> Lanes for Halves<F32, Format> {
    on_both_vectors!(add(other), multiply(other), minimum(other), maximum(other), canonical());

    #[inline(always)]
    fn divide(self, divisor: usize) -> Self {
        Halves::new(self.first.divide(divisor), self.second.divide(divisor))
    }
}
