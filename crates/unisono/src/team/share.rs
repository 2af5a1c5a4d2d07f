//! A share of a step's copying and reducing.
//!
//! The code of a step is run once for each share and touches, of every buffer, only that share's part. The invariant:
//! **parts begin at whole cache lines**, counted from the start of the buffer, so that no line of the staging and no element
//! is dealt with by two threads; which part an element falls into changes nothing about its bits.

use unisono_kernels::Reducer;

use crate::memory::{self, LINE, Rows, Source, Sources, Target, Targets};

/// Which share of every buffer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    index: usize,
    of: usize,
}

impl Share {
    /// Everything.
    pub(crate) const WHOLE: Share = Share { index: 0, of: 1 };

    pub(super) fn new(index: u32, of: u32) -> Self {
        Share { index: index as usize, of: of.max(1) as usize }
    }

    /// This share's part of `bytes` bytes: offset and length.
    #[inline]
    pub(crate) fn part(self, bytes: usize) -> (usize, usize) {
        if self.of == 1 {
            return (0, bytes);
        }
        let lines = bytes.div_ceil(LINE);
        // In 128 bits: a buffer may have half of all addresses.
        let line = |index: usize| (lines as u128 * index as u128 / self.of as u128) as usize;
        let start = (line(self.index) * LINE).min(bytes);
        let end = line(self.index + 1).saturating_mul(LINE).min(bytes);
        (start, end - start)
    }

    /// [`memory::copy`] of this share's part.
    #[inline]
    pub(crate) fn copy(self, target: Target<'_>, source: Source<'_>) {
        let (offset, bytes) = self.part(target.len().min(source.len()));
        memory::copy(target.part(offset, bytes), source.part(offset, bytes));
    }

    /// [`memory::copy_into_rows`] of this share's part.
    pub(crate) fn copy_into_rows(self, block: Target<'_>, rows: Rows, offset: usize, source: Source<'_>) {
        let (skipped, bytes) = self.part(source.len());
        memory::copy_into_rows(block, rows, offset + skipped, source.part(skipped, bytes));
    }

    /// [`memory::reduce`] of this share's part.
    #[inline]
    pub(crate) fn reduce(
        self,
        reducer: &Reducer,
        targets: &Targets,
        sources: &Sources,
        count: usize,
        element: usize,
    ) {
        if self.of == 1 {
            return memory::reduce(reducer, targets, sources, count, element);
        }
        let (offset, bytes) = self.part(count * element);
        memory::reduce_part(reducer, targets, sources, (offset / element, bytes / element), element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_lines_and_cover_everything_once() {
        for bytes in [0, 1, 63, 64, 65, 1000, 4096, 1 << 20, usize::MAX / 2] {
            for of in [1, 2, 3, 7, 64] {
                let mut next = 0;
                for index in 0..of {
                    let (offset, part) = Share::new(index, of).part(bytes);
                    assert_eq!(offset, next, "share {index} of {of} of {bytes} bytes");
                    assert!(part == 0 || offset % LINE == 0);
                    next += part;
                }
                assert_eq!(next, bytes);
            }
        }
    }
}
