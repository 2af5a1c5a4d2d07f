//! The reduce loop.
//!
//! ```text
//! source 0      |--- block ---|--- block ---|-vector-|-vector-|rest|
//! source 1      |--- block ---|--- block ---|-vector-|-vector-|rest|
//!     ...             ↓ fold, in registers
//! destinations  |--- block ---|--- block ---|-vector-|-vector-|rest|
//! ```
//!
//! Each source is read once, each destination written once. The one invariant that matters: of each block all
//! sources are read before any destination is written, so a destination may be one of the sources.

#![allow(unsafe_code)]

use super::block::Block;
use super::operation::Operation;
use super::vector::Vector;

/// For each of `count` elements, folds the sources and stores the result to all destinations.
///
/// # Safety
/// The machine has the instruction set of `V`, and the function is inlined where it is switched on. `count`
/// elements may be read at every source and written at every destination; a destination is the same pointer
/// as a source or does not overlap it.
#[inline(always)]
pub(crate) unsafe fn reduce<V, O>(destinations: &[*mut u8], sources: &[*const u8], count: usize)
where
    V: Vector,
    O: Operation<V> + Operation<Block<V>>,
{
    // Sums of two sources are the common case: spelled out with their numbers known, the loops over sources
    // and destinations vanish and the pointers stay in registers.
    let is_common = const { <O as Operation<V>>::IS_COMMON };
    // SAFETY: the caller's promises for all of the pointers are the callee's for the same pointers.
    unsafe {
        match (destinations, sources) {
            (&[destination], &[first, second]) if is_common => {
                reduce_spans::<V, O>(&[destination], first, &[second], count);
            }
            (&[destination, another], &[first, second]) if is_common => {
                reduce_spans::<V, O>(&[destination, another], first, &[second], count);
            }
            (destinations, &[first, ref others @ ..]) => {
                reduce_spans::<V, O>(destinations, first, others, count);
            }
            (_, &[]) => {}
        }
    }
}

/// Blocks as long as they fit, then vectors, then what is left.
///
/// # Safety
/// As for [`reduce`].
#[inline(always)]
unsafe fn reduce_spans<V, O>(destinations: &[*mut u8], first: *const u8, others: &[*const u8], count: usize)
where
    V: Vector,
    O: Operation<V> + Operation<Block<V>>,
{
    let bytes = count * V::ELEMENT_BYTES;
    let mut offset = 0;
    // SAFETY: each span begins at `offset` and its length is compared with what is left, so it lies inside
    // the `bytes` bytes that the caller vouches for; the last has fewer elements than a vector.
    unsafe {
        while bytes - offset >= Block::<V>::BYTES {
            reduce_block::<V, O>(destinations, first, others, offset);
            offset += Block::<V>::BYTES;
        }
        while bytes - offset >= V::BYTES {
            reduce_vector::<V, O>(destinations, first, others, offset);
            offset += V::BYTES;
        }
        if offset < bytes {
            let rest = (bytes - offset) / V::ELEMENT_BYTES;
            reduce_rest::<V, O>(destinations, first, others, offset, rest);
        }
    }
}

/// # Safety
/// As for [`reduce`], for one block at `offset` bytes.
#[inline(always)]
unsafe fn reduce_block<V: Vector, O: Operation<Block<V>>>(
    destinations: &[*mut u8],
    first: *const u8,
    others: &[*const u8],
    offset: usize,
) {
    // SAFETY: the caller vouches for one block at `offset` of every pointer.
    unsafe {
        let mut accumulator = Block::<V>::load(first.add(offset));
        for source in others {
            accumulator = O::fold(accumulator, Block::load(source.add(offset)));
        }
        let result = O::finish(accumulator, 1 + others.len());
        for destination in destinations {
            result.store(destination.add(offset));
        }
    }
}

/// # Safety
/// As for [`reduce`], for one vector at `offset` bytes.
#[inline(always)]
unsafe fn reduce_vector<V: Vector, O: Operation<V>>(
    destinations: &[*mut u8],
    first: *const u8,
    others: &[*const u8],
    offset: usize,
) {
    // SAFETY: the caller vouches for one vector at `offset` of every pointer.
    unsafe {
        let mut accumulator = V::load(first.add(offset));
        for source in others {
            accumulator = O::fold(accumulator, V::load(source.add(offset)));
        }
        let result = O::finish(accumulator, 1 + others.len());
        for destination in destinations {
            result.store(destination.add(offset));
        }
    }
}

/// # Safety
/// As for [`reduce`], for `rest` elements at `offset` bytes, fewer than a vector has.
#[inline(always)]
unsafe fn reduce_rest<V: Vector, O: Operation<V>>(
    destinations: &[*mut u8],
    first: *const u8,
    others: &[*const u8],
    offset: usize,
    rest: usize,
) {
    // SAFETY: the caller vouches for `rest` elements at `offset` of every pointer, fewer than a vector has.
    unsafe {
        let mut accumulator = V::load_first(first.add(offset), rest);
        for source in others {
            accumulator = O::fold(accumulator, V::load_first(source.add(offset), rest));
        }
        let result = O::finish(accumulator, 1 + others.len());
        for destination in destinations {
            result.store_first(destination.add(offset), rest);
        }
    }
}
