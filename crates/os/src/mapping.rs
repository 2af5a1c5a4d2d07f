//! A range of memory of this process, shared with others or its own.
//!
//! The library maps each rank's sealed memory here and turns offsets into places. The one invariant that
//! matters: **no `&` or `&mut` to plain data is ever made from a mapping**, since another process may write
//! it at any moment; what a caller gets is a raw pointer, a length, and references to atomics. Every mapping
//! is left out of forked children, and its destructor does nothing there.

#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::OsError;
use crate::features::{self, Known};
use crate::fork_guard::ForkMark;

/// What this process may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; a write is a fatal signal.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A mapped range; unmapped on drop, in the process that mapped it.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    access: Access,
    born: ForkMark,
}

// SAFETY: a mapping is an address range that stays valid until drop, in whatever thread that is; the type
// gives out raw pointers and atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the mapping itself.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map `bytes` bytes of `memory` from `offset` (a multiple of the page size), shared with all who map it.
    ///
    /// # Errors
    /// If the memory ends before `offset + bytes` (touching what lies beyond would be a fatal signal), if
    /// `bytes` is zero, or if the system refuses.
    pub fn shared(
        memory: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        access: Access,
    ) -> Result<Mapping, OsError> {
        verify_within(memory, offset, bytes)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                protection(access),
                MapFlags::SHARED,
                memory,
                offset,
            )
        };
        let base = base.map_err(|errno| {
            OsError::from_errno("mmap", errno, format!("{bytes} shared bytes from offset {offset}"))
        })?;
        Mapping::adopt(base, bytes, access)
    }

    /// Map `bytes` bytes of `memory` from `offset` (both multiples of the page size) twice in a row, shared with all who
    /// map it: the byte at `bytes + i` is the byte at `i`, so that a ring is contiguous wherever one begins to read it.
    ///
    /// # Errors
    /// As [`Mapping::shared`]; `EINVAL` if `bytes` is no multiple of the page size.
    pub fn shared_twice(
        memory: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        access: Access,
    ) -> Result<Mapping, OsError> {
        verify_within(memory, offset, bytes)?;
        let context = || format!("{bytes} shared bytes from offset {offset}, twice");
        let both = bytes.checked_mul(2).filter(|_| bytes.is_multiple_of(page_size()));
        let both = both.ok_or_else(|| OsError::new("mmap", libc::EINVAL, context()))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), both, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(|errno| OsError::from_errno("mmap", errno, context()))?;
        let reserved = Mapping::adopt(base, both, access)?; // From here on, drop unmaps.
        for half in [0, bytes] {
            // SAFETY: the half lies in the range reserved above, which nobody else knows of yet.
            unsafe {
                rustix::mm::mmap(
                    reserved.base.as_ptr().add(half).cast(),
                    bytes,
                    protection(access),
                    MapFlags::SHARED | MapFlags::FIXED,
                    memory,
                    offset,
                )
            }
            .map_err(|errno| OsError::from_errno("mmap", errno, context()))?;
        }
        // What replaced the reservation has not been told yet.
        reserved
            .advise(Advice::LinuxDontFork)
            .map_err(|errno| OsError::from_errno("madvise(MADV_DONTFORK)", errno, context()))?;
        Ok(reserved)
    }

    /// Map `bytes` bytes of zeroed memory that belongs to this process alone; its threads share it.
    ///
    /// # Errors
    /// If `bytes` is zero or no memory is left.
    pub fn anonymous(bytes: usize) -> Result<Mapping, OsError> {
        let access = Access::ReadWrite;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection(access), MapFlags::PRIVATE)
        };
        let base =
            base.map_err(|errno| OsError::from_errno("mmap", errno, format!("{bytes} private bytes")))?;
        Mapping::adopt(base, bytes, access)
    }

    /// Take ownership of a fresh mapping and leave it out of forked children.
    fn adopt(base: *mut libc::c_void, bytes: usize, access: Access) -> Result<Mapping, OsError> {
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| OsError::new("mmap", libc::ENOMEM, "address zero"))?;
        let mapping = Mapping { base, bytes, access, born: ForkMark::now() };
        mapping.advise(Advice::LinuxDontFork).map_err(|errno| {
            OsError::from_errno("madvise(MADV_DONTFORK)", errno, format!("{bytes} bytes"))
        })?;
        Ok(mapping)
    }

    /// The first byte. Valid for [`len`](Mapping::len) bytes as long as the mapping lives; another process
    /// may write them at any moment, and in a forked child they do not exist.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The bytes mapped.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// What may be done with the memory.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The 32-bit word at `offset` bytes, or `None` if it is out of bounds or not aligned to four bytes, if
    /// the mapping is read-only (an atomic may be written), or if this is a forked child, where nothing is
    /// mapped.
    pub fn atomic_u32(&self, offset: usize) -> Option<&AtomicU32> {
        self.writable_place::<AtomicU32>(offset).map(|place| {
            // SAFETY: the place is aligned, inside the mapping, writable and mapped as long as `self`;
            // an atomic may be written by other processes while a reference to it exists.
            unsafe { place.as_ref() }
        })
    }

    /// The 64-bit word at `offset` bytes, under the same conditions, aligned to eight bytes.
    pub fn atomic_u64(&self, offset: usize) -> Option<&AtomicU64> {
        self.writable_place::<AtomicU64>(offset).map(|place| {
            // SAFETY: as in `atomic_u32`.
            unsafe { place.as_ref() }
        })
    }

    fn writable_place<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        let usable = end <= self.bytes && self.access == Access::ReadWrite && !self.born.crossed_fork();
        // SAFETY: `offset` is at most `bytes`, so the sum stays inside the mapping (or one past it).
        let place = usable.then(|| unsafe { self.base.add(offset) }.cast::<T>())?;
        place.is_aligned().then_some(place)
    }

    /// Allocate every page now, without changing any content: the first touch, which also decides on which
    /// memory node a page lies, so the owner does it on the processors that will use it.
    ///
    /// # Errors
    /// If memory runs out. (Above a cgroup's limit the kernel kills instead: ask
    /// [`headroom`](crate::memory_limit::headroom) before.)
    pub fn populate(&self) -> Result<(), OsError> {
        let advice = match self.access {
            Access::ReadWrite => Advice::LinuxPopulateWrite,
            Access::ReadOnly => Advice::LinuxPopulateRead,
        };
        if !features::has(Known::PopulateWrite) {
            return self.touch_each_page();
        }
        loop {
            match self.advise(advice) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => {
                    let context = format!("{} bytes", self.bytes);
                    return Err(OsError::from_errno("madvise(MADV_POPULATE)", errno, context));
                }
            }
        }
    }

    /// The fall-back of [`populate`](Mapping::populate): write what is there back to one byte of each page.
    fn touch_each_page(&self) -> Result<(), OsError> {
        if self.born.crossed_fork() {
            return Err(OsError::new("populate", libc::EFAULT, "a mapping does not survive a fork"));
        }
        for offset in (0..self.bytes).step_by(rustix::param::page_size()) {
            // SAFETY: `offset` is below `bytes`, so the byte is mapped and readable as long as `self` lives;
            // an atomic may be written by others meanwhile. A read-only page is only read.
            let byte = unsafe { self.base.add(offset).cast::<AtomicU8>().as_ref() };
            let value = byte.load(Ordering::Relaxed);
            if self.access == Access::ReadWrite {
                // An exchange of a value for itself is a write that no compiler drops. If another thread
                // changed the byte in between, the page has been touched, which is all that is wanted.
                let _ = byte.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Ask for huge pages where the system gives them on request; says whether the system took the advice.
    pub fn advise_huge_pages(&self) -> bool {
        self.advise(Advice::LinuxHugepage).is_ok()
    }

    fn advise(&self, advice: Advice) -> Result<(), rustix::io::Errno> {
        // SAFETY: the range is exactly our mapping, and none of the advices used in this file (DONTFORK,
        // POPULATE, HUGEPAGE) changes its contents or takes pages away from this process.
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            return; // The range does not exist here, or is by now somebody else's.
        }
        // SAFETY: the range was mapped by `shared` or `anonymous` in this process, is owned by `self`, and
        // all references given out are bound to `self`'s life.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The unit in which memory is mapped.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

fn protection(access: Access) -> ProtFlags {
    match access {
        Access::ReadOnly => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    }
}

/// Refuse a range that the memory does not have.
pub(crate) fn verify_within(memory: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<(), OsError> {
    let status = rustix::fs::fstat(memory).map_err(|errno| OsError::from_errno("fstat", errno, "memory"))?;
    let size = u64::try_from(status.st_size).unwrap_or(0);
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= size => Ok(()),
        _ => {
            let context = format!("{bytes} bytes from offset {offset}, of memory that has {size}");
            Err(OsError::new("mmap", libc::ENXIO, context))
        }
    }
}

/// Whether `MADV_POPULATE_WRITE` (5.14) is there; asked once, by [`features`].
pub(crate) fn probe_populate() -> bool {
    let Ok(probe) = Mapping::anonymous(1) else { return false };
    probe.advise(Advice::LinuxPopulateWrite).is_ok() && probe.is_resident()
}

impl Mapping {
    /// Whether the first page is in memory. An emulator may accept an advice and do nothing.
    fn is_resident(&self) -> bool {
        let mut resident = 0_u8;
        // SAFETY: the range is the first page of our own mapping, for which the answer has one byte.
        let answer = unsafe { libc::mincore(self.base.as_ptr().cast(), 1, (&raw mut resident).cast()) };
        answer == 0 && resident & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memfd;
    use std::os::fd::AsFd;

    #[test]
    fn two_mappings_of_one_memory_see_each_others_words() {
        let memory = memfd::create_sealed("unisono-test", 8192).unwrap();
        let one = Mapping::shared(memory.as_fd(), 0, 8192, Access::ReadWrite).unwrap();
        let page = rustix::param::page_size();
        let other = Mapping::shared(memory.as_fd(), 0, 8192, Access::ReadWrite).unwrap();
        one.atomic_u32(4100).unwrap().store(7, Ordering::Release);
        assert_eq!(other.atomic_u32(4100).unwrap().load(Ordering::Acquire), 7);
        if page == 4096 {
            let tail = Mapping::shared(memory.as_fd(), 4096, 4096, Access::ReadWrite).unwrap();
            assert_eq!(tail.atomic_u32(4).unwrap().load(Ordering::Acquire), 7);
        }
    }

    #[test]
    fn a_ring_mapped_twice_has_no_seam() {
        let page = page_size();
        let memory = memfd::create_sealed("unisono-test", 3 * page).unwrap();
        let ring = Mapping::shared_twice(memory.as_fd(), page as u64, 2 * page, Access::ReadWrite).unwrap();
        assert_eq!(ring.len(), 4 * page);
        for (written, seen) in [(0, 2 * page), (3 * page, page), (2 * page - 8, 4 * page - 8)] {
            ring.atomic_u64(written).unwrap().store(written as u64 + 1, Ordering::Release);
            assert_eq!(ring.atomic_u64(seen).unwrap().load(Ordering::Acquire), written as u64 + 1);
        }
        let once = Mapping::shared(memory.as_fd(), page as u64, page, Access::ReadWrite).unwrap();
        assert_eq!(once.atomic_u64(0).unwrap().load(Ordering::Acquire), 1);
        for (offset, bytes) in [(0, page + 8), (0, 4 * page), (0, 0)] {
            assert!(Mapping::shared_twice(memory.as_fd(), offset, bytes, Access::ReadWrite).is_err());
        }
    }

    #[test]
    fn words_out_of_bounds_or_out_of_line_are_refused() {
        let mapping = Mapping::anonymous(4096).unwrap();
        assert!(mapping.atomic_u32(4092).is_some() && mapping.atomic_u64(4088).is_some());
        for offset in [4093, 4096, 4100, usize::MAX, usize::MAX - 3] {
            assert!(mapping.atomic_u32(offset).is_none(), "{offset}");
        }
        assert!(mapping.atomic_u32(2).is_none() && mapping.atomic_u64(4).is_none());
        assert!(mapping.atomic_u64(4092).is_none());
    }

    #[test]
    fn memory_shorter_than_the_range_is_refused_before_it_is_touched() {
        let memory = memfd::create_sealed("unisono-test", 4096).unwrap();
        for (offset, bytes) in [(0, 4097), (4096, 1), (u64::MAX - 4095, 4096)] {
            let error = Mapping::shared(memory.as_fd(), offset, bytes, Access::ReadWrite).unwrap_err();
            assert_eq!(error.errno, libc::ENXIO, "{error}");
        }
        assert!(Mapping::shared(memory.as_fd(), 0, 0, Access::ReadWrite).is_err());
        assert!(Mapping::anonymous(0).is_err());
    }

    #[test]
    fn a_read_only_mapping_gives_no_atomics() {
        let memory = memfd::create_sealed("unisono-test", 4096).unwrap();
        let mapping = Mapping::shared(memory.as_fd(), 0, 4096, Access::ReadOnly).unwrap();
        assert!(mapping.atomic_u32(0).is_none());
        mapping.populate().unwrap();
    }

    #[test]
    fn populating_allocates_every_page_and_keeps_the_content() {
        let mapping = Mapping::anonymous(64 * rustix::param::page_size()).unwrap();
        mapping.atomic_u32(0).unwrap().store(9, Ordering::Relaxed);
        mapping.populate().unwrap();
        assert_eq!(mapping.atomic_u32(0).unwrap().load(Ordering::Relaxed), 9);
        assert!(mapping.is_resident());
    }

    #[test]
    fn touching_page_by_page_does_the_same() {
        let _pretence = features::pretend_absent(Known::PopulateWrite);
        let memory = memfd::create_sealed("unisono-test", 16 * 4096).unwrap();
        let mapping = Mapping::shared(memory.as_fd(), 0, 16 * 4096, Access::ReadWrite).unwrap();
        let blocks = || rustix::fs::fstat(&memory).unwrap().st_blocks;
        assert_eq!(blocks(), 0);
        mapping.populate().unwrap();
        assert_eq!(blocks(), 16 * 8, "512-byte blocks of 16 pages of 4096");
    }
}
