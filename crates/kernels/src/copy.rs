//! The door to the copy kernels.
//!
//! Collectives copy into and out of shared memory with [`copy`]: its stores go through the caches, where the
//! peer finds them soonest. [`copy_streaming`] goes past the caches, which pays only for what nobody reads
//! soon. The one invariant that matters: no function here returns with streamed stores open.

#![allow(unsafe_code)]

use crate::arch::{prefetch_line_for_write, selected};

/// The unit in which caches hold memory.
const CACHE_LINE: usize = 64;

/// Above this the C library's copy, which knows the sizes of the caches, is at least as fast.
const LARGEST_OWN_COPY: usize = 64 * 1024;

/// Copies `bytes` bytes with stores that go through the caches.
///
/// # Safety
/// `bytes` bytes may be read at `source` and written at `destination`, at any alignment, and the two do not
/// overlap.
#[inline]
pub unsafe fn copy(destination: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: the selected kernels are of an instruction set that the machine has; the rest is what the
    // caller vouches for.
    unsafe {
        if bytes <= LARGEST_OWN_COPY {
            (selected().copy)(destination, source, bytes);
        } else {
            core::ptr::copy_nonoverlapping(source, destination, bytes);
        }
    }
}

/// Copies `bytes` bytes with stores that bypass the caches, and orders them before any later store.
///
/// Only x86-64 with AVX2 or more has such stores here. On other machines this is [`copy`], whose stores are
/// ordered by the release with which a caller publishes them.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn copy_streaming(destination: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: the selected kernels are of an instruction set that the machine has; the rest is what the
    // caller vouches for.
    unsafe { (selected().copy_streaming)(destination, source, bytes) };
}

/// Copies `rows` rows of `row_bytes` bytes each, with stores that go through the caches.
///
/// A stride is the distance in bytes from the start of a row to the start of the next.
///
/// # Safety
/// Each row may be read and written, and no destination row overlaps a source row or another destination row.
pub unsafe fn copy_rows(
    destination: *mut u8,
    destination_stride: usize,
    source: *const u8,
    source_stride: usize,
    row_bytes: usize,
    rows: usize,
) {
    if destination_stride == row_bytes && source_stride == row_bytes {
        // SAFETY: rows that follow one another without a gap are one copy of their sum.
        return unsafe { copy(destination, source, row_bytes * rows) };
    }
    for row in 0..rows {
        // SAFETY: the caller vouches for this row of both.
        unsafe {
            copy(destination.add(row * destination_stride), source.add(row * source_stride), row_bytes);
        }
    }
}

/// Asks the processor to fetch the cache lines of these bytes for writing, where it knows how.
///
/// It is a hint: any pointer may be given, and nothing that a program can see changes.
#[inline]
pub fn prefetch_for_write(pointer: *const u8, bytes: usize) {
    let mut line = pointer.wrapping_sub(pointer.addr() % CACHE_LINE);
    let behind = pointer.wrapping_add(bytes);
    while line < behind {
        prefetch_line_for_write(line);
        line = line.wrapping_add(CACHE_LINE);
    }
}

/// Whether [`prefetch_for_write`], a little ahead of a loop that reads lines another core has written and then writes them, is
/// worth its instructions on this machine: on AMD's processors it is (up to a third of the loop's time was saved), on
/// Intel's their own prefetching does better (up to a fifth was lost). Where nobody has measured it is not.
#[inline]
pub fn asking_ahead_pays() -> bool {
    crate::arch::asking_ahead_pays()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::kernels;
    use crate::isa::Isa;

    const GUARD: usize = 8;

    /// Copies `bytes` bytes between misaligned places and compares all of the destination, guards included.
    fn check(
        copy: unsafe fn(*mut u8, *const u8, usize),
        bytes: usize,
        destination_at: usize,
        source_at: usize,
    ) {
        let source: Vec<u8> = (0..source_at + bytes).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut destination = vec![0xa5_u8; 64 + destination_at + bytes + GUARD];
        let start = destination.as_ptr().addr().wrapping_neg() % 64 + destination_at;
        let start = if start + bytes + GUARD > destination.len() { destination_at } else { start };
        // SAFETY: both vectors are long enough for their offset and the bytes.
        unsafe { copy(destination[start..].as_mut_ptr(), source[source_at..].as_ptr(), bytes) };
        assert_eq!(&destination[start..start + bytes], &source[source_at..]);
        let guards = destination[..start].iter().chain(&destination[start + bytes..]);
        assert!(guards.into_iter().all(|&byte| byte == 0xa5), "{bytes} bytes to {destination_at}");
    }

    #[test]
    fn every_length_and_misalignment_is_copied_and_nothing_else_is_written() {
        for isa in Isa::available() {
            let kernels = kernels(isa);
            for bytes in (0..=700).chain([4096, 65_537]) {
                let (destination_at, source_at) = (bytes % 64, bytes * 5 % 61);
                check(kernels.copy, bytes, destination_at, source_at);
                check(kernels.copy_streaming, bytes, destination_at, source_at);
            }
            for destination_at in 0..64 {
                check(kernels.copy, 517, destination_at, 3);
                check(kernels.copy_streaming, 517, destination_at, 3);
            }
        }
        for bytes in [0, 1, 100, LARGEST_OWN_COPY, LARGEST_OWN_COPY + 1, 300_000] {
            check(copy, bytes, 5, 9);
            check(copy_streaming, bytes, 5, 9);
        }
    }

    #[test]
    fn rows_are_copied_and_gaps_are_not() {
        for (destination_stride, source_stride) in [(100, 100), (100, 130), (140, 100), (140, 130)] {
            let source: Vec<u8> = (0..source_stride * 4).map(|i| i as u8).collect();
            let mut destination = vec![0xa5_u8; destination_stride * 4];
            // SAFETY: four rows of 100 bytes lie inside both vectors.
            unsafe {
                copy_rows(
                    destination.as_mut_ptr(),
                    destination_stride,
                    source.as_ptr(),
                    source_stride,
                    100,
                    4,
                );
            }
            for row in 0..4 {
                let (found, gap) =
                    destination[row * destination_stride..][..destination_stride].split_at(100);
                assert_eq!(found, &source[row * source_stride..][..100]);
                assert!(gap.iter().all(|&byte| byte == 0xa5));
            }
        }
    }

    #[test]
    fn a_prefetch_may_be_given_anything() {
        let bytes = [7_u8; 300];
        prefetch_for_write(bytes.as_ptr(), bytes.len());
        prefetch_for_write(std::ptr::null(), 64);
        prefetch_for_write(std::ptr::without_provenance(usize::MAX - 100), 4096);
        assert!(bytes.iter().all(|&byte| byte == 7));
    }
}
