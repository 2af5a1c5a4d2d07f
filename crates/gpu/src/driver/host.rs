//! Reading memory of the host that a device writes meanwhile.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Copies what is there now, word by word where words are whole.
///
/// # Safety
///
/// So many bytes from `from` on are readable as long as this runs, and nobody has a reference to them.
pub(super) unsafe fn read_shared(from: *const u8, into: &mut [u8]) {
    let is_aligned = from.addr().is_multiple_of(4);
    let (words, rest) = into.as_chunks_mut::<4>();
    let whole = 4 * words.len();
    for (index, word) in words.iter_mut().enumerate() {
        if is_aligned {
            // SAFETY: inside by the caller's promise, aligned as was seen; atomics may be written by others meanwhile.
            let found = unsafe { AtomicU32::from_ptr(from.add(4 * index).cast_mut().cast()) };
            *word = found.load(Ordering::Acquire).to_ne_bytes();
        } else {
            for (offset, byte) in word.iter_mut().enumerate() {
                // SAFETY: as above; bytes need no alignment.
                *byte = unsafe { AtomicU8::from_ptr(from.add(4 * index + offset).cast_mut()) }
                    .load(Ordering::Acquire);
            }
        }
    }
    for (offset, byte) in rest.iter_mut().enumerate() {
        // SAFETY: as above.
        *byte = unsafe { AtomicU8::from_ptr(from.add(whole + offset).cast_mut()) }.load(Ordering::Acquire);
    }
}
