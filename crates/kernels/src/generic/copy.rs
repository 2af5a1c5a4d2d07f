//! The copy loops: one through the caches, one past them.
//!
//! [`copy`] overlaps its last vectors with what was copied before instead of finishing byte by byte, which is
//! allowed as source and destination do not overlap. [`copy_streaming`] sends whole cache lines past the
//! caches. The one invariant that matters: it ends with its own store fence, so no caller can publish
//! something before the streamed bytes are visible.

#![allow(unsafe_code)]

use super::block::Block;
use super::vector::{Streaming, Vector};

/// The unit in which caches hold memory.
const CACHE_LINE: usize = 64;

/// Copies with ordinary stores.
///
/// # Safety
/// The machine has the instruction set of `V`. `bytes` bytes may be read at `source` and written at
/// `destination`, and the two do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy<V: Vector>(destination: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: each branch passes on the caller's promise and has compared the size its callee needs.
    unsafe {
        if bytes < V::BYTES {
            copy_small(destination, source, bytes);
        } else if bytes <= 2 * V::BYTES {
            copy_ends::<V>(destination, source, bytes);
        } else if bytes <= 4 * V::BYTES {
            copy_pairs::<V>(destination, source, bytes);
        } else {
            copy_large::<V>(destination, source, bytes);
        }
    }
}

/// Moves one unaligned value.
///
/// # Safety
/// A `T` may be read at `source` and written at `destination`, each plus `offset`; any bits are a valid `T`.
#[inline(always)]
unsafe fn move_value<T: Copy>(destination: *mut u8, source: *const u8, offset: usize) {
    // SAFETY: the caller vouches for one `T` at both places; neither access demands alignment.
    unsafe {
        let value = source.add(offset).cast::<T>().read_unaligned();
        destination.add(offset).cast::<T>().write_unaligned(value);
    }
}

/// Copies fewer than 64 bytes: two overlapping values of the largest size that fits.
///
/// # Safety
/// As for [`copy`], for fewer than 64 bytes.
#[inline(always)]
unsafe fn copy_small(destination: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: each value begins at 0 or ends at `bytes`, and `bytes` was compared with its size; between 32
    // and 63 bytes the second value from each end ends at 32 or begins at `bytes - 32`.
    unsafe {
        if bytes >= 32 {
            move_value::<u128>(destination, source, 0);
            move_value::<u128>(destination, source, 16);
            move_value::<u128>(destination, source, bytes - 32);
            move_value::<u128>(destination, source, bytes - 16);
        } else if bytes >= 16 {
            move_value::<u128>(destination, source, 0);
            move_value::<u128>(destination, source, bytes - 16);
        } else if bytes >= 8 {
            move_value::<u64>(destination, source, 0);
            move_value::<u64>(destination, source, bytes - 8);
        } else if bytes >= 4 {
            move_value::<u32>(destination, source, 0);
            move_value::<u32>(destination, source, bytes - 4);
        } else if bytes > 0 {
            move_value::<u8>(destination, source, 0);
            move_value::<u8>(destination, source, bytes / 2);
            move_value::<u8>(destination, source, bytes - 1);
        }
    }
}

/// Copies one to two vectors: the first and the last, which may overlap.
///
/// # Safety
/// As for [`copy`], for `V::BYTES` to `2 * V::BYTES` bytes.
#[inline(always)]
unsafe fn copy_ends<V: Vector>(destination: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: there is at least one vector, so one at the start and one that ends at the end are inside.
    unsafe {
        let (head, tail) = (V::load(source), V::load(source.add(bytes - V::BYTES)));
        head.store(destination);
        tail.store(destination.add(bytes - V::BYTES));
    }
}

/// Copies two to four vectors: the first two and the last two, which may overlap.
///
/// # Safety
/// As for [`copy`], for `2 * V::BYTES` to `4 * V::BYTES` bytes.
#[inline(always)]
unsafe fn copy_pairs<V: Vector>(destination: *mut u8, source: *const u8, bytes: usize) {
    let last = bytes - V::BYTES;
    let last_but_one = last - V::BYTES;
    // SAFETY: there are at least two vectors, so two at the start and two that end at the end are inside.
    unsafe {
        let (first, second) = (V::load(source), V::load(source.add(V::BYTES)));
        let (third, fourth) = (V::load(source.add(last_but_one)), V::load(source.add(last)));
        first.store(destination);
        second.store(destination.add(V::BYTES));
        third.store(destination.add(last_but_one));
        fourth.store(destination.add(last));
    }
}

/// Copies more than four vectors: one to reach an aligned destination, blocks, vectors, and the last one.
///
/// # Safety
/// As for [`copy`], for more than `4 * V::BYTES` bytes.
#[inline(always)]
unsafe fn copy_large<V: Vector>(destination: *mut u8, source: *const u8, bytes: usize) {
    let last = bytes - V::BYTES;
    // Stores that straddle two cache lines cost double: skip to the next multiple of the vector's size.
    let mut offset = V::BYTES - destination.addr() % V::BYTES;
    // SAFETY: the head is the first vector and covers the 1 to `V::BYTES` bytes that are skipped. Blocks and
    // vectors end at or before `last`, the tail begins there.
    unsafe {
        V::load(source).store(destination);
        while offset + Block::<V>::BYTES <= last {
            Block::<V>::load(source.add(offset)).store(destination.add(offset));
            offset += Block::<V>::BYTES;
        }
        while offset < last {
            V::load(source.add(offset)).store(destination.add(offset));
            offset += V::BYTES;
        }
        V::load(source.add(last)).store(destination.add(last));
    }
}

/// Copies with stores that bypass the caches, then waits until they are ordered before any later store.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
pub(crate) unsafe fn copy_streaming<V: Streaming>(destination: *mut u8, source: *const u8, bytes: usize) {
    let head = destination.addr().wrapping_neg() % CACHE_LINE;
    // SAFETY: the head, the lines and the tail are consecutive parts of what the caller vouches for. After
    // the head the destination is a multiple of a cache line.
    unsafe {
        if !V::STREAMS || bytes < head + CACHE_LINE {
            return copy::<V>(destination, source, bytes);
        }
        copy_small(destination, source, head);
        let lines_end = bytes - (bytes - head) % CACHE_LINE;
        for offset in (head..lines_end).step_by(CACHE_LINE) {
            V::stream_line(destination.add(offset), source.add(offset));
        }
        V::fence();
        copy_small(destination.add(lines_end), source.add(lines_end), bytes - lines_end);
    }
}
