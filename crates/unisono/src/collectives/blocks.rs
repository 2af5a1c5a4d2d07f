//! Where the blocks of the ranks lie in a buffer: all of one length, or end to end with a length each.

/// A block per rank.
#[derive(Clone, Debug)]
pub(crate) enum Table<'a> {
    /// Blocks of this many bytes each.
    Even(usize),
    /// Blocks of these many elements of this many bytes, end to end.
    Uneven(&'a [usize], usize),
}

impl Table<'_> {
    /// Offset and length of a rank's block, in bytes.
    pub(crate) fn range(&self, rank: usize) -> (usize, usize) {
        match *self {
            Table::Even(bytes) => (rank * bytes, bytes),
            Table::Uneven(counts, element) => {
                let before: usize = counts.iter().take(rank).sum();
                (before * element, counts.get(rank).copied().unwrap_or(0) * element)
            }
        }
    }

    /// The length of the longest block, in bytes.
    pub(crate) fn longest(&self) -> usize {
        match *self {
            Table::Even(bytes) => bytes,
            Table::Uneven(counts, element) => counts.iter().copied().max().unwrap_or(0) * element,
        }
    }
}
