//! Memory of the host's that devices reach, too: words that a kernel and a thread of the host read and write at the same time.
//!
//! The invariant: nobody makes a reference to anything in it but to an atomic, and no word is believed: it is read once, and held
//! against what it may be.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::driver::Driver;
use crate::error::Error;

/// Drivers map whole pages.
const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;

/// Zeroed words that begin where a page does, and have their pages to themselves.
#[derive(Debug)]
pub struct HostWords {
    memory: Box<[AtomicU64]>,
    /// The first word of the first whole page.
    first: usize,
    count: usize,
}

impl HostWords {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        let per_page = PAGE_BYTES / WORD_BYTES;
        let rounded = count.next_multiple_of(per_page);
        let memory: Box<[_]> = (0..rounded + per_page - 1).map(|_| AtomicU64::new(0)).collect();
        let at = memory.as_ptr().addr();
        let first = (at.next_multiple_of(PAGE_BYTES) - at) / WORD_BYTES;
        Self { memory, first, count }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// One of them, if there are so many.
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index < self.count { self.memory.get(self.first + index) } else { None }
    }

    /// Where they begin, at a multiple of 4096, and how many bytes to map: whole pages. For drivers.
    pub fn pages(&self) -> (*const AtomicU64, usize) {
        let bytes = (self.count * WORD_BYTES).next_multiple_of(PAGE_BYTES);
        (self.memory[self.first..].as_ptr(), bytes)
    }
}

/// A driver whose devices reach memory of the host's (CUDA: `cuMemHostRegister` with `DEVICEMAP`, ROCm: `hipHostRegister` with
/// `Mapped`), coherently: a kernel's accesses at system scope and the host's atomics see one another while the kernel runs.
pub trait MapHost: Driver {
    /// Lets the device reach the words; returns the address of the first. The driver holds on to them.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with what the driver said.
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error>;

    /// Takes back what [`MapHost::map_host`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with what the driver said.
    fn unmap_host(&self, address: u64) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_pages_to_themselves() {
        for count in [1, 511, 512, 513] {
            let words = HostWords::new(count);
            let (at, bytes) = words.pages();
            assert!(at.addr().is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES));
            assert!(bytes >= count * WORD_BYTES);
            assert!(words.get(count - 1).is_some() && words.get(count).is_none());
            // The last page lies within what was allocated.
            let end = words.memory.as_ptr().addr() + words.memory.len() * WORD_BYTES;
            assert!(at.addr() + bytes <= end);
        }
    }
}
