//! The reduce operations in terms of lanes.
//!
//! An [`Operation`] says how two values become one and what happens to the last one before it is stored. The
//! one invariant that matters: `finish` makes every NaN canonical, whatever the fold left.

use super::vector::{BitLanes, Lanes};

/// A reduce operation on lanes of type `L`.
pub(crate) trait Operation<L> {
    /// Whether it is worth code of its own for two sources: the sum is what all-reduce is called for.
    const IS_COMMON: bool;

    /// The value so far, and the next source's.
    fn fold(accumulator: L, next: L) -> L;

    /// What is stored, after all of `sources` are folded.
    fn finish(accumulator: L, sources: usize) -> L;
}

macro_rules! operations {
    ($($(#[$meta:meta])* $name:ident: $lanes:ident, $fold:ident, $is_common:literal;)+) => {$(
        $(#[$meta])*
        pub(crate) struct $name;

        impl<L: $lanes> Operation<L> for $name {
            const IS_COMMON: bool = $is_common;

            #[inline(always)]
            fn fold(accumulator: L, next: L) -> L {
                accumulator.$fold(next)
            }

            #[inline(always)]
            fn finish(accumulator: L, _sources: usize) -> L {
                accumulator.canonical()
            }
        }
    )+};
}

operations! {
    /// The sum.
    Sum: Lanes, add, true;
    /// The product.
    Product: Lanes, multiply, false;
    /// The least.
    Min: Lanes, minimum, false;
    /// The greatest.
    Max: Lanes, maximum, false;
    /// Bitwise and.
    And: BitLanes, and, false;
    /// Bitwise or.
    Or: BitLanes, or, false;
    /// Bitwise exclusive or.
    Xor: BitLanes, xor, false;
}

/// The sum divided by the number of sources.
pub(crate) struct Average;

impl<L: Lanes> Operation<L> for Average {
    const IS_COMMON: bool = false;

    #[inline(always)]
    fn fold(accumulator: L, next: L) -> L {
        accumulator.add(next)
    }

    #[inline(always)]
    fn finish(accumulator: L, sources: usize) -> L {
        accumulator.divide(sources).canonical()
    }
}
