//! Who is where, how long messages may be, and what memory that takes.
//!
//! The ranks of a node each reduce a slice. A rank has room for a slice from each of its peers, of inputs and of results, for
//! two calls: 8 bytes for 4 of the message. So scratch of 8 times the message is always enough.

use super::error::PacketError;
use crate::dtype::DType;
use crate::layout::MAX_RANKS;

/// Bytes of the message that a word carries, and bytes of a word.
pub(super) const DATA_BYTES: usize = 4;
pub(super) const WORD_BYTES: usize = 8;
/// Two calls, inputs and results.
const SLOTS_PER_PEER: usize = 4;
/// Slots are numbered in 32 bits.
const MOST_WORDS: usize = 1 << 30;

/// How a sum is formed. All ranks of a context say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sum {
    /// Rank 0's value, plus rank 1's, and so on over both nodes; in f32, rounded once. The same bits as all other algorithms.
    /// Between two nodes it takes two crossings: the second node goes on where the first ended.
    #[default]
    InRankOrder,
    /// In rank order within each node, then the first node's plus the second's; in f32, rounded once. The same bits on all
    /// ranks, but not those of a plain loop. One crossing. On one node the same as [`Sum::InRankOrder`].
    ByNode,
    /// What MSCCL++ does: the peers' values in order of rank, then the own of whoever reduces, rounded to the type after each
    /// addition; then the other node's. The same bits on all ranks, but they depend on who reduces.
    In16Bits,
}

impl Sum {
    /// As the kernels have it.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::InRankOrder => 0,
            Self::ByNode => 1,
            Self::In16Bits => 2,
        }
    }
}

/// A rank among others, on one node or two: ranks of a node are consecutive.
///
/// ```
/// use unisono_gpu::packet::Shape;
///
/// let shape = Shape::new(5, 8, 4)?;
/// assert_eq!((shape.nodes(), shape.node(), shape.local()), (2, 1, 1));
/// // Its packets go to rank 1, which has the same place on the other node.
/// assert_eq!(shape.opposite(), Some(1));
/// assert!(Shape::new(0, 6, 4).is_err());
/// # Ok::<(), unisono_gpu::packet::PacketError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    rank: usize,
    world: usize,
    ranks_per_node: usize,
}

impl Shape {
    /// Rank `rank` of `world`, of which each node has `ranks_per_node`.
    ///
    /// # Errors
    ///
    /// [`PacketError::Nodes`] unless that makes one node of 2 to 8 ranks, or two of 1 to 8, and `rank` is among them.
    pub fn new(rank: usize, world: usize, ranks_per_node: usize) -> Result<Self, PacketError> {
        let is_near = world == ranks_per_node && world >= 2;
        let is_far = ranks_per_node >= 1 && world == 2 * ranks_per_node;
        if ranks_per_node > MAX_RANKS || !(is_near || is_far) || rank >= world {
            return Err(PacketError::Nodes { world, ranks_per_node });
        }
        Ok(Self { rank, world, ranks_per_node })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// All ranks.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Ranks of a node.
    pub fn ranks_per_node(&self) -> usize {
        self.ranks_per_node
    }

    /// 1 or 2.
    pub fn nodes(&self) -> usize {
        self.world / self.ranks_per_node
    }

    /// The node of this rank.
    pub fn node(&self) -> usize {
        self.rank / self.ranks_per_node
    }

    /// This rank's place on its node.
    pub fn local(&self) -> usize {
        self.rank % self.ranks_per_node
    }

    /// The ranks of this node.
    pub fn neighbours(&self) -> std::ops::Range<usize> {
        let first = self.node() * self.ranks_per_node;
        first..first + self.ranks_per_node
    }

    /// The rank of the same place on the other node, if there is one.
    pub fn opposite(&self) -> Option<usize> {
        (self.nodes() == 2).then(|| (self.rank + self.ranks_per_node) % self.world)
    }

    /// Bytes of scratch that messages of so many bytes take: 8 times as many at most, rounded up to whole slices.
    pub fn scratch_bytes(&self, bytes: usize) -> usize {
        SLOTS_PER_PEER * (self.ranks_per_node - 1) * self.slice_words(bytes) * WORD_BYTES
    }

    /// Bytes for packets to the other node that messages of so many bytes take; none on one node.
    ///
    /// Sums of 16-bit elements cross as f32, unless they are rounded before ([`Sum::In16Bits`]).
    pub fn put_bytes(&self, bytes: usize, dtype: DType, sum: Sum) -> usize {
        if self.nodes() == 1 { 0 } else { 2 * self.put_words(bytes, dtype, sum) * WORD_BYTES }
    }

    /// Words of the longest slice of a message.
    pub(super) fn slice_words(&self, bytes: usize) -> usize {
        bytes.div_ceil(DATA_BYTES).div_ceil(self.ranks_per_node)
    }

    fn put_words(&self, bytes: usize, dtype: DType, sum: Sum) -> usize {
        let is_wide = sum != Sum::In16Bits;
        self.slice_words(bytes) * if is_wide { DATA_BYTES / dtype.size() } else { 1 }
    }

    /// Words of a slot in so much scratch; alone on its node a rank has no slots, and only the puts are a limit.
    pub(super) fn slot_words(&self, scratch_bytes: usize) -> usize {
        let slots = SLOTS_PER_PEER * (self.ranks_per_node - 1) * WORD_BYTES;
        scratch_bytes.checked_div(slots).unwrap_or(MOST_WORDS).min(MOST_WORDS)
    }

    /// Words that can be put at a time with so many bytes.
    pub(super) fn most_put_words(&self, put_bytes: usize) -> usize {
        if self.nodes() == 1 { 0 } else { (put_bytes / (2 * WORD_BYTES)).min(MOST_WORDS) }
    }

    /// Whether a message fits, given a slot's words and those of a put.
    pub(super) fn check_length(
        &self,
        bytes: usize,
        dtype: DType,
        sum: Sum,
        slot: usize,
        put: usize,
    ) -> Result<(), PacketError> {
        if self.slice_words(bytes) > slot {
            let found = self.scratch_bytes(slot * self.ranks_per_node * DATA_BYTES);
            let (most, needed) = (slot * self.ranks_per_node * DATA_BYTES, self.scratch_bytes(bytes));
            return Err(PacketError::TooLong { bytes, what: "the scratch", found, most, needed });
        }
        let per_word = self.put_words(DATA_BYTES, dtype, sum);
        if self.nodes() == 2 && self.put_words(bytes, dtype, sum) > put {
            let most = put / per_word * self.ranks_per_node * DATA_BYTES;
            let (found, needed) = (2 * put * WORD_BYTES, self.put_bytes(bytes, dtype, sum));
            return Err(PacketError::TooLong { bytes, what: "the put buffer", found, most, needed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_of_2_to_8_ranks_or_two_of_1_to_8() {
        for (world, ranks_per_node) in [(2, 2), (7, 7), (8, 8), (2, 1), (6, 3), (16, 8)] {
            assert!(Shape::new(world - 1, world, ranks_per_node).is_ok(), "{world} {ranks_per_node}");
        }
        for (world, ranks_per_node) in [(1, 1), (9, 9), (18, 9), (8, 3), (12, 4), (0, 0), (4, 8)] {
            let refused = Shape::new(0, world, ranks_per_node);
            assert_eq!(refused, Err(PacketError::Nodes { world, ranks_per_node }));
        }
        assert!(Shape::new(4, 4, 4).is_err());
    }

    #[test]
    fn what_upstreams_tests_give_is_enough_for_what_they_ask() {
        // 2^19 elements of 2 bytes: 8 times as much scratch, and as much again to put from.
        let bytes = 2 << 19;
        for (world, ranks) in [(8, 8), (16, 8)] {
            let shape = Shape::new(0, world, ranks).unwrap();
            assert!(shape.scratch_bytes(bytes) <= 8 * bytes);
            assert!(shape.put_bytes(bytes, DType::BF16, Sum::InRankOrder) <= bytes);
        }
    }

    #[test]
    fn a_message_that_needs_exactly_what_is_there_fits_and_one_word_more_does_not() {
        for (world, ranks) in [(2, 2), (3, 3), (8, 8), (6, 3), (2, 1)] {
            let shape = Shape::new(0, world, ranks).unwrap();
            for bytes in [4 * ranks, 4000 * ranks] {
                let slot = shape.slot_words(shape.scratch_bytes(bytes));
                for (dtype, sum) in [(DType::F32, Sum::ByNode), (DType::F16, Sum::InRankOrder)] {
                    let put = shape.most_put_words(shape.put_bytes(bytes, dtype, sum));
                    assert_eq!(shape.check_length(bytes, dtype, sum, slot, put), Ok(()));
                    let refused = shape.check_length(bytes + 1, dtype, sum, slot, put);
                    let Err(PacketError::TooLong { most, .. }) = refused else { panic!("too long") };
                    assert_eq!(most, bytes);
                }
            }
        }
    }
}
