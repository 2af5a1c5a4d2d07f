//! The door to the copy kernels.
//!
//! Collectives copy into and out of shared memory with [`copy`]: its stores go through the caches, where the
//! peer finds them soonest. [`copy_streaming`] goes past the caches, which pays only for what nobody reads
//! soon. The one invariant that matters: no function here returns with streamed stores open.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use crate::arch::{Kernels, kernels, prefetch_line_for_write};
use crate::isa::Isa;

/// The unit in which caches hold memory.
const CACHE_LINE: usize = 64;

/// Above this the C library's copy, which knows the sizes of the caches, is at least as fast.
const LARGEST_OWN_COPY: usize = 64 * 1024;

/// The kernels that copies use: those of the selected instruction set.
#[inline]
fn selected() -> &'static Kernels {
    static KERNELS: OnceLock<Kernels> = OnceLock::new();
    KERNELS.get_or_init(|| kernels(Isa::selected_or_best()))
}

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
