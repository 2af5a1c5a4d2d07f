//! One rank's memory as the ranks of the group see it: a base address, a layout, and no references to data.
//!
//! This is the room where offsets become pointers. Words become references to atomics, which may be shared with
//! processes that write them; data stays raw pointers. The memory is at least as large as the layout says, which
//! [`SharedMemory::new`] checks once.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use unisono_os::mapping::Mapping;
use unisono_protocol::{ArrivalLine, Cursor, Tag};

use super::header::Header;
use super::layout::{BESIDE_TAG, DEATH_WORDS, LINE, Layout, PAGE};
use crate::error::{Error, Result};
use crate::memory::Target;

/// The memory of one rank, mapped here.
#[derive(Clone, Debug)]
pub(crate) struct SharedMemory {
    /// Where the mapping begins: a pointer less to follow.
    base: NonNull<u8>,
    layout: Arc<Layout>,
    owner: usize,
    /// What `base` points into, kept alive.
    _mapping: Arc<Mapping>,
}

/// All but the pointer may be shared by threads, says the compiler.
const _: fn() = || {
    fn both<T: Send + Sync>() {}
    both::<(Arc<Mapping>, Arc<Layout>, usize)>();
};
// SAFETY: `base` points into the mapping, which may be shared by threads and lives as long as this.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

/// One of the two swap regions of a pair of ranks: the line of its tag, with room beside it, then its data.
#[derive(Clone, Copy)]
pub(crate) struct SwapRegion<'m> {
    whole: Target<'m>,
    tag: &'m Tag,
}

impl<'m> SwapRegion<'m> {
    #[inline(always)]
    pub(crate) fn tag(self) -> &'m Tag {
        self.tag
    }

    /// The room beside the tag.
    #[inline(always)]
    pub(crate) fn beside_tag(self) -> Target<'m> {
        self.whole.part(0, BESIDE_TAG)
    }

    /// The lines after that of the tag.
    #[inline(always)]
    pub(crate) fn data(self) -> Target<'m> {
        self.whole.part(LINE, usize::MAX)
    }
}

impl SharedMemory {
    /// See `mapping` as the memory of rank `owner`.
    ///
    /// # Errors
    /// If the mapping is smaller than the layout or not aligned to a page.
    pub(crate) fn new(mapping: Arc<Mapping>, layout: Arc<Layout>, owner: usize) -> Result<Self> {
        let base = NonNull::new(mapping.as_ptr()).filter(|base| base.addr().get().is_multiple_of(PAGE));
        let Some(base) = base.filter(|_| mapping.len() >= layout.total()) else {
            return Err(Error::Segment {
                name: format!("of rank {owner}"),
                problem: format!("expected {} bytes, found {}", layout.total(), mapping.len()),
            });
        };
        Ok(SharedMemory { base, layout, owner, _mapping: mapping })
    }

    /// Where the memory begins, and its length: to tell its addresses from others.
    #[cfg(feature = "counts")]
    pub(crate) fn extent(&self) -> (usize, usize) {
        (self.base.addr().get(), self.layout.total())
    }

    /// A word structure at an offset of the layout.
    #[inline]
    fn words<T>(&self, offset: usize) -> &T {
        debug_assert!(
            offset + size_of::<T>() <= self.layout.total() && offset.is_multiple_of(align_of::<T>())
        );
        // SAFETY: the types used here (Header, Cursor, Tag, AtomicU32) consist of atomics only, for which any
        // bit pattern is valid and which may be written by other processes while a reference exists. The
        // offset comes from the layout, so it is aligned for T and T lies inside `layout.total()` bytes, which
        // the mapping holds (checked in `new`); the mapping lives as long as `self`, hence as the reference.
        unsafe { self.base.add(offset).cast::<T>().as_ref() }
    }

    /// A data region: `bytes` from `offset`.
    #[inline]
    fn data(&self, offset: usize, bytes: usize) -> Target<'_> {
        debug_assert!(offset + bytes <= self.layout.total());
        // SAFETY: offset and length come from the layout, so the region lies inside the mapping (checked in
        // `new`), which lives as long as `self`, hence as the target.
        unsafe { Target::from_raw(self.base.add(offset).as_ptr(), bytes) }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        self.words(0)
    }

    #[inline]
    pub(crate) fn arrival(&self) -> &ArrivalLine {
        &self.header().arrival
    }

    /// The cursor that the owner moves as it sends to `peer`.
    #[inline]
    pub(crate) fn head(&self, peer: usize) -> &Cursor {
        self.words(self.layout.head(peer))
    }

    /// The cursor that the owner moves as it receives from `peer`.
    #[inline]
    pub(crate) fn tail(&self, peer: usize) -> &Cursor {
        self.words(self.layout.tail(peer))
    }

    /// The word that the kernel marks for `peer` when the owner's process dies.
    #[inline]
    pub(crate) fn death_word(&self, peer: usize) -> &std::sync::atomic::AtomicU32 {
        self.words(DEATH_WORDS + peer * unisono_os::robust::STRIDE)
    }

    /// The owner's broadcast buffer 0 or 1.
    #[inline]
    pub(crate) fn broadcast(&self, buffer: usize) -> Target<'_> {
        self.data(self.layout.broadcast(buffer), self.layout.broadcast_bytes)
    }

    /// The swap region shared with `peer` that lies here.
    #[inline(always)]
    pub(crate) fn swap(&self, peer: usize) -> SwapRegion<'_> {
        let offset = self.layout.swap(self.owner, peer);
        let whole = self.data(offset, LINE + self.layout.swap_bytes);
        SwapRegion { whole, tag: self.words(offset + BESIDE_TAG) }
    }

    /// The slot in which `sender` hands its slice to the owner.
    #[inline]
    pub(crate) fn migrate(&self, sender: usize) -> Target<'_> {
        self.data(self.layout.migrate(self.owner, sender), self.layout.migrate_bytes)
    }

    /// The owner's data, in an allocation of registered memory.
    #[inline]
    pub(crate) fn registered(&self) -> Target<'_> {
        self.data(self.layout.data(), self.layout.registered_bytes)
    }

    /// The window in which `sender` sends to the owner.
    #[inline]
    pub(crate) fn window(&self, sender: usize) -> Target<'_> {
        self.data(self.layout.window(self.owner, sender), self.layout.window_bytes)
    }
}
