//! The words that host and quick kernels share: the mirror of `kernels/quick.h`.

use crate::layout::{MAX_RANKS, PACK_BYTES};

/// Blocks of a launch at most: four for each of the 304 units of an MI300X.
pub const QUICK_BLOCKS: usize = 1216;
/// Threads of a block.
pub const QUICK_THREADS: usize = 256;
/// Packs of a tile per thread.
pub(super) const ROWS: usize = 8;
/// A rank sends what others reduce, then what it has reduced.
const PHASES: usize = 2;

/// `tiles[block]`, then `posted[phase][block][rank]`.
const SIGNAL_BYTES: usize = 4 * QUICK_BLOCKS * (1 + PHASES * MAX_RANKS);
const _: () = assert!(SIGNAL_BYTES == 82_688 && (4 * QUICK_BLOCKS).is_multiple_of(128));

/// Bytes that a block of so many threads takes at a time.
pub(super) fn tile_bytes(threads: usize) -> usize {
    ROWS * PACK_BYTES * threads
}

/// Bytes of a rank's memory: the signals, and for each block and phase a slot per rank of as many rows as a rank reduces.
pub(super) fn memory_bytes(world: usize, blocks: usize, threads: usize) -> usize {
    SIGNAL_BYTES + blocks * PHASES * world * ROWS.div_ceil(world) * PACK_BYTES * threads
}

/// What a launch is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuickCall {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) signals: [u64; MAX_RANKS],
    pub(super) elements: u64,
    pub(super) patience: u64,
    pub(super) overdue: u64,
    pub(super) rank: u32,
    pub(super) world: u32,
}

impl QuickCall {
    /// As the kernels' one parameter.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(112);
        let tail = [self.elements, self.patience, self.overdue];
        for word in [self.input, self.output].iter().chain(&self.signals).chain(&tail) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.rank.to_le_bytes());
        bytes.extend_from_slice(&self.world.to_le_bytes());
        bytes
    }
}
