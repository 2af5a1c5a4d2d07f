//! The words that host and kernels share: the mirror of `kernels/types.h`.
//!
//! Everything here is written and read as little-endian bytes, field by field, so nothing depends on how Rust lays out a
//! struct.

/// Ranks that can reduce together.
pub const MAX_RANKS: usize = 8;
/// Blocks of a launch.
pub const MAX_BLOCKS: usize = 36;
/// Threads of a block.
pub const BLOCK_THREADS: usize = 512;
/// Bytes of a rank's signals. Its scratch begins right behind them.
pub const META_BYTES: usize = META_WORDS * 4;

/// `met[block][rank]`, then `posted[2][block][rank]`; each of the two begins at a multiple of 128 bytes.
const META_WORDS: usize = 3 * MAX_BLOCKS * MAX_RANKS;
const _: () = assert!((MAX_BLOCKS * MAX_RANKS * 4).is_multiple_of(128) && META_BYTES == 3456);

/// Bytes of a row of the table of inputs: a pointer per rank.
pub(crate) const ROW_BYTES: usize = 8 * MAX_RANKS;
/// Bytes of the record that an overdue rank leaves.
pub(crate) const OVERDUE_BYTES: usize = 28;
/// What each thread moves at a time.
pub(crate) const PACK_BYTES: usize = 16;

/// What a launch is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The row of the table of inputs.
    pub(crate) inputs: u64,
    pub(crate) signals: [u64; MAX_RANKS],
    pub(crate) output: u64,
    pub(crate) elements: u64,
    pub(crate) patience: u64,
    pub(crate) overdue: u64,
    pub(crate) rank: u32,
}

impl Call {
    /// As the kernels' one parameter.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(112);
        let head = [self.inputs];
        let tail = [self.output, self.elements, self.patience, self.overdue, u64::from(self.rank)];
        for word in head.iter().chain(&self.signals).chain(&tail) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Who waited in vain, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Who waited.
    pub rank: u32,
    /// Which of its blocks; the first that gave up.
    pub block: u32,
    /// For whom.
    pub peer: u32,
    /// The number of the meeting.
    pub expected: u32,
    /// The last number that the peer had posted there.
    pub found: u32,
    /// The index of the flag among those that are posted to this rank.
    pub flag: u32,
}

impl Overdue {
    /// Reads the record; `None` if nobody waited in vain.
    pub(crate) fn from_bytes(bytes: &[u8; OVERDUE_BYTES]) -> Option<Self> {
        let word = |index: usize| {
            let at = 4 * index;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        (word(0) == 2).then(|| Self {
            rank: word(1),
            block: word(2),
            peer: word(3),
            expected: word(4),
            found: word(5),
            flag: word(6),
        })
    }
}
