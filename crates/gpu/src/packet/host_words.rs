//! Memory of the host's that devices reach, too: words that a kernel and a thread of the host read and write at the same time.
//!
//! The invariant: nobody makes a reference to anything in it but to an atomic, and no word is believed: it is read once, and held
//! against what it may be.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use unisono_os::mapping::Mapping;

use crate::driver::Driver;
use crate::error::Error;

/// Drivers map whole pages.
const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;

/// Zeroed words that begin where a page does, and have their pages to themselves. A forked child has none of them: pages that both
/// have would be copied when one writes, and the device would go on with the other's.
#[derive(Debug)]
pub struct HostWords {
    memory: Mapping,
    count: usize,
}

impl HostWords {
    /// So many of them.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with what the system said where there is no memory.
    pub fn new(count: usize) -> Result<Self, Error> {
        let bytes = (count * WORD_BYTES).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        let refused =
            |problem: unisono_os::OsError| Error::Driver { call: "mmap", reason: problem.to_string() };
        Ok(Self { memory: Mapping::anonymous(bytes).map_err(refused)?, count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// One of them, if there are so many.
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index < self.count { self.memory.atomic_u64(index * WORD_BYTES) } else { None }
    }

    /// Where they begin, at a multiple of 4096, and how many bytes to map: whole pages. For drivers.
    pub fn pages(&self) -> (*mut u8, usize) {
        (self.memory.as_ptr(), self.memory.len())
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
            let words = HostWords::new(count).unwrap();
            let (at, bytes) = words.pages();
            assert!(at.addr().is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES));
            assert!(bytes >= count * WORD_BYTES);
            assert!(words.get(count - 1).is_some() && words.get(count).is_none());
        }
    }
}
