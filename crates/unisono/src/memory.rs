//! Pointers with a length: the callers' buffers and the staging regions, as the collectives see them.
//!
//! A [`Source`] can be read and a [`Target`] written, by copying and reducing only: no `&` or `&mut` to data is ever
//! made, because staging is memory that another process may write at any moment. A part of a buffer never
//! reaches outside it, whatever offsets it was asked for. So everything above this file is safe code.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use unisono_kernels::{self as kernels, Element, Reducer};

use crate::counts;
use crate::parameters::MAX_WORLD_SIZE;

/// The unit that memory travels in between cores.
pub(crate) const LINE: usize = 64;

/// Memory that may be read for `'a`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    start: *const u8,
    bytes: usize,
    lives: PhantomData<&'a [u8]>,
}

/// Memory that may be written and read for `'a`; another process may do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    start: *mut u8,
    bytes: usize,
    lives: PhantomData<&'a mut [u8]>,
}

// SAFETY: a pointer with a length, which may go wherever a `&[u8]` may. Whoever copies through it reads memory that others
// may write: that is so on one thread, too, because other processes write staging.
unsafe impl Send for Source<'_> {}
// SAFETY: as above.
unsafe impl Sync for Source<'_> {}

// SAFETY: as for `Source`, as a `&mut [u8]`. Threads that share one write parts that don't overlap (`team/share.rs`).
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

impl<'a> Source<'a> {
    pub(crate) fn of<T: Element>(data: &'a [T]) -> Self {
        Source { start: data.as_ptr().cast(), bytes: size_of_val(data), lives: PhantomData }
    }

    /// # Safety
    /// `start` is valid for reads of `bytes` bytes for `'a` (or `bytes` is 0).
    pub(crate) unsafe fn from_raw(start: *const u8, bytes: usize) -> Self {
        Source { start, bytes, lives: PhantomData }
    }

    pub(crate) fn len(self) -> usize {
        self.bytes
    }

    pub(crate) fn address(self) -> usize {
        self.start.addr()
    }

    /// Where it begins.
    #[inline]
    pub(crate) fn start(self) -> *const u8 {
        self.start
    }

    /// At most `bytes` bytes from `offset`, cut off at the end.
    #[inline]
    pub(crate) fn part(self, offset: usize, bytes: usize) -> Self {
        let offset = offset.min(self.bytes);
        // SAFETY: `offset` lies inside the memory or at its end.
        let start = unsafe { self.start.add(offset) };
        Source { start, bytes: bytes.min(self.bytes - offset), lives: PhantomData }
    }
}

impl<'a> Target<'a> {
    pub(crate) fn of<T: Element>(data: &'a mut [T]) -> Self {
        Target { start: data.as_mut_ptr().cast(), bytes: size_of_val(data), lives: PhantomData }
    }

    /// # Safety
    /// `start` is valid for reads and writes of `bytes` bytes for `'a` (or `bytes` is 0).
    pub(crate) unsafe fn from_raw(start: *mut u8, bytes: usize) -> Self {
        Target { start, bytes, lives: PhantomData }
    }

    pub(crate) fn len(self) -> usize {
        self.bytes
    }

    /// At most `bytes` bytes from `offset`, cut off at the end.
    #[inline]
    pub(crate) fn part(self, offset: usize, bytes: usize) -> Self {
        let offset = offset.min(self.bytes);
        // SAFETY: `offset` lies inside the memory or at its end.
        let start = unsafe { self.start.add(offset) };
        Target { start, bytes: bytes.min(self.bytes - offset), lives: PhantomData }
    }

    /// Ask for the memory's cache lines, to be written soon. A hint: whoever else holds them is not disturbed for good.
    #[inline]
    pub(crate) fn fetch_for_write(self) {
        kernels::prefetch_for_write(self.start.cast_const(), self.bytes);
    }

    /// Where it begins.
    pub(crate) fn pointer(self) -> *mut u8 {
        self.start
    }

    /// The same memory, to be read.
    #[inline]
    pub(crate) fn as_source(self) -> Source<'a> {
        Source { start: self.start, bytes: self.bytes, lives: PhantomData }
    }
}

/// Copy `source` to the beginning of `target`: as many bytes as both have. The same memory is left as it is.
#[inline]
pub(crate) fn copy(target: Target<'_>, source: Source<'_>) {
    if target.start.cast_const() == source.start {
        return;
    }
    let bytes = target.bytes.min(source.bytes);
    counts::read(source.start, bytes);
    counts::written(target.start, bytes);
    // SAFETY: both are valid for the shorter length; they don't overlap: callers' buffers were checked
    // (`overlap` in arguments.rs) and staging belongs to the group alone.
    unsafe { kernels::copy(target.start, source.start, bytes) }
}

/// Rows of a strided block, of which a contiguous stretch is written at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Bytes of a row that belong to the block.
    pub(crate) row_bytes: usize,
    /// Bytes from one row to the next.
    pub(crate) stride: usize,
}

/// Copy `source` into the rows of a block, beginning at byte `offset` of the block (rows laid end to end).
pub(crate) fn copy_into_rows(block: Target<'_>, rows: Rows, offset: usize, source: Source<'_>) {
    let Rows { row_bytes, stride } = rows;
    if row_bytes == 0 {
        return;
    }
    let place = |at: usize| (at / row_bytes) * stride + at % row_bytes;
    let mut done = 0;
    // Up to the next full row, then all full rows at once, then what is left.
    let head = ((row_bytes - offset % row_bytes) % row_bytes).min(source.bytes);
    copy(block.part(place(offset), head), source.part(0, head));
    done += head;
    let full = (source.bytes - done) / row_bytes;
    if full > 0 {
        let first =
            block.part(place(offset + done), (full - 1).saturating_mul(stride).saturating_add(row_bytes));
        let held = if first.bytes < row_bytes { 0 } else { (first.bytes - row_bytes) / stride.max(1) + 1 };
        let from = source.part(done, full * row_bytes);
        let copied = held.min(full);
        counts::read(from.start, copied * row_bytes);
        (0..copied).for_each(|row| counts::written(first.start.wrapping_add(row * stride), row_bytes));
        // SAFETY: `first` holds `held` rows at this stride and `from` holds `full` rows; no overlap, as in `copy`.
        unsafe { kernels::copy_rows(first.start, stride, from.start, row_bytes, row_bytes, copied) }
        done += full * row_bytes;
    }
    let tail = source.part(done, source.bytes - done);
    copy(block.part(place(offset + done), tail.bytes), tail);
}

/// Up to 64 pointers, collected without allocating and without touching the places that stay empty.
pub(crate) struct List<P> {
    pointers: [MaybeUninit<P>; MAX_WORLD_SIZE],
    len: usize,
    /// The shortest memory in the list, in bytes.
    least: usize,
}

// SAFETY: a list of what `Source` and `Target` point to; it goes where they may, and is only read through `&`.
unsafe impl<P> Sync for List<P> {}

impl<P: Copy> List<P> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        List { pointers: [const { MaybeUninit::uninit() }; MAX_WORLD_SIZE], len: 0, least: usize::MAX }
    }

    #[inline(always)]
    fn add(&mut self, pointer: P, bytes: usize) {
        if let Some(slot) = self.pointers.get_mut(self.len) {
            slot.write(pointer);
            self.len += 1;
            self.least = self.least.min(bytes);
        }
    }

    #[inline(always)]
    fn as_slice(&self) -> &[P] {
        // SAFETY: `add` has written the first `len` places, and nothing else changes `len`.
        unsafe { std::slice::from_raw_parts(self.pointers.as_ptr().cast::<P>(), self.len) }
    }
}

impl<P: Copy> List<P> {
    /// The same places, each from the one that `later` gives: `offset` bytes on, which all of them have.
    fn moved(&self, offset: usize, later: impl Fn(P) -> P) -> Self {
        let mut list = List::new();
        for pointer in self.as_slice() {
            list.add(later(*pointer), self.least - offset);
        }
        list
    }
}

/// What is reduced, in the order of the ranks.
pub(crate) type Sources = List<*const u8>;
/// Where the result goes.
pub(crate) type Targets = List<*mut u8>;

impl Sources {
    #[inline(always)]
    pub(crate) fn push(&mut self, source: Source<'_>) {
        self.add(source.start, source.bytes);
    }
}

impl Targets {
    #[inline(always)]
    pub(crate) fn push(&mut self, target: Target<'_>) {
        self.add(target.start, target.bytes);
    }
}

/// As many of `count` elements as fit `bytes` bytes; without a division where all do.
#[inline]
fn fitting(count: usize, element_bytes: usize, bytes: usize) -> usize {
    let all = count.checked_mul(element_bytes).is_some_and(|all| all <= bytes);
    if all { count } else { bytes / element_bytes }
}

/// Reduce `count` elements of `sources`, in their order, into every target.
#[inline]
pub(crate) fn reduce(
    reducer: &Reducer,
    targets: &Targets,
    sources: &Sources,
    count: usize,
    element_bytes: usize,
) {
    let count = fitting(count, element_bytes, targets.least.min(sources.least));
    if count == 0 || targets.len == 0 || sources.len == 0 {
        return;
    }
    sources.as_slice().iter().for_each(|source| counts::read(*source, count * element_bytes));
    targets.as_slice().iter().for_each(|target| counts::written(*target, count * element_bytes));
    // SAFETY: every pointer in the lists is valid for at least `count` elements (`least`), and a target is either
    // one of the sources (in place, or a staging slot reduced in place) or disjoint from them, as in `copy`.
    unsafe { reducer.reduce(targets.as_slice(), sources.as_slice(), count) }
}

/// [`reduce`] of `count` elements from element `first` on.
pub(crate) fn reduce_part(
    reducer: &Reducer,
    targets: &Targets,
    sources: &Sources,
    (first, count): (usize, usize),
    element_bytes: usize,
) {
    if targets.len == 0 || sources.len == 0 {
        return;
    }
    let offset = first.saturating_mul(element_bytes).min(targets.least).min(sources.least);
    // SAFETY: `offset` lies inside the shortest memory of either list or at its end.
    let targets = targets.moved(offset, |target| unsafe { target.add(offset) });
    // SAFETY: as above.
    let sources = sources.moved(offset, |source| unsafe { source.add(offset) });
    reduce(reducer, &targets, &sources, count, element_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_never_reaches_outside() {
        let data = [1u8, 2, 3, 4];
        let source = Source::of(&data);
        assert_eq!(source.part(2, 100).len(), 2);
        assert_eq!(source.part(100, 1).len(), 0);
        assert_eq!(source.part(usize::MAX, usize::MAX).len(), 0);
    }

    #[test]
    fn stretches_land_in_their_rows() {
        for row_bytes in [1usize, 3, 4, 7] {
            for rows in [1usize, 2, 5] {
                let stride = row_bytes + 5;
                let data: Vec<u8> = (0..row_bytes * rows).map(|i| i as u8 + 1).collect();
                for piece in 1..=data.len() {
                    let mut block = vec![0u8; stride * rows];
                    let target = Target::of(&mut block);
                    let layout = Rows { row_bytes, stride };
                    for offset in (0..data.len()).step_by(piece) {
                        copy_into_rows(target, layout, offset, Source::of(&data).part(offset, piece));
                    }
                    for row in 0..rows {
                        let found = &block[row * stride..][..row_bytes];
                        assert_eq!(
                            found,
                            &data[row * row_bytes..][..row_bytes],
                            "row {row}, pieces of {piece}"
                        );
                        assert!(
                            block[row * stride + row_bytes..(row + 1) * stride].iter().all(|byte| *byte == 0)
                        );
                    }
                }
            }
        }
    }
}
