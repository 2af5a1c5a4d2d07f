//! Memory that an operation reads or writes, with a margin on both sides that it must leave alone.
//!
//! A buffer lies either where slices of any element type may lie, or at an odd address for the forms that take
//! pointers; never at the beginning of a cache line.

#![allow(unsafe_code)]

use unisono::Element;

/// Bytes on either side of the content.
const MARGIN: usize = 80;

/// What the margins and blank buffers are filled with; no two neighbouring bytes are equal.
fn filler(index: usize) -> u8 {
    (index % 251) as u8 ^ 0xa5
}

/// Where in its cache line a buffer begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// 8 bytes in.
    AlignedToElements,
    /// 13 bytes in.
    AlignedToNothing,
}

/// A piece of memory with margins.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` bytes of filler.
    pub(crate) fn blank(len: usize, place: Place) -> Self {
        let memory: Vec<u8> = (0..len + 2 * MARGIN + 80).map(filler).collect();
        let within = match place {
            Place::AlignedToElements => 8,
            Place::AlignedToNothing => 13,
        };
        // The vector's own memory stays where it is when the vector moves.
        let line = memory.as_ptr().addr() + MARGIN;
        let start = MARGIN + (line.next_multiple_of(64) - line) + within;
        Buffer { memory, start, len }
    }

    pub(crate) fn holding(content: &[u8], place: Place) -> Self {
        let mut buffer = Buffer::blank(content.len(), place);
        buffer.bytes_mut().copy_from_slice(content);
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }

    /// The content as elements.
    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        let bytes = self.bytes();
        // SAFETY: any bit pattern is a value of an `Element`, so every whole run of them in these bytes may be seen
        // as elements for as long as the bytes are borrowed.
        let (before, elements, after) = unsafe { bytes.align_to::<T>() };
        assert!(before.is_empty() && after.is_empty(), "the buffer was made for slices of whole elements");
        elements
    }

    /// The content as elements.
    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        let bytes = self.bytes_mut();
        // SAFETY: as above; and every element is as many valid bytes when it has been written.
        let (before, elements, after) = unsafe { bytes.align_to_mut::<T>() };
        assert!(before.is_empty() && after.is_empty(), "the buffer was made for slices of whole elements");
        elements
    }

    pub(crate) fn pointer(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    pub(crate) fn pointer_mut(&mut self) -> *mut u8 {
        self.bytes_mut().as_mut_ptr()
    }

    /// See that the content is as expected and the margins as they were; else say where not.
    pub(crate) fn compare(&self, expected: &[u8], element: usize) -> Result<(), String> {
        let (end, all) = (self.start + self.len, self.memory.len());
        if let Some(touched) = (0..self.start).chain(end..all).find(|at| self.memory[*at] != filler(*at)) {
            let distance = touched as isize - self.start as isize;
            return Err(format!(
                "the memory {distance} bytes from the start of {} bytes was written",
                self.len
            ));
        }
        let found = self.bytes();
        if found == expected {
            return Ok(());
        }
        if found.len() != expected.len() {
            return Err(format!("the test compares {} bytes with {}", found.len(), expected.len()));
        }
        let (found, expected) = (found.chunks(element), expected.chunks(element));
        let wrong: Vec<_> =
            found.zip(expected).enumerate().filter(|(_, (found, expected))| found != expected).collect();
        let (index, (found, expected)) = wrong[0];
        Err(format!(
            "{} elements differ; element {index} is {found:02x?} instead of {expected:02x?}",
            wrong.len()
        ))
    }
}
