//! Which kernel, and with how many blocks: a pure function of what all ranks know alike.

use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{BLOCK_THREADS, MAX_RANKS, PACK_BYTES};

/// What a kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// All-reduce: every rank reduces everything: the least waiting.
    OneShot,
    /// All-reduce: every rank reduces a part, and collects the others': the least traffic.
    TwoShot,
    /// Every rank reduces its portion and keeps it.
    ReduceScatter,
    /// Every rank collects all portions.
    AllGather,
}

/// What all ranks do for an all-reduce of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The kernel.
    pub algorithm: Algorithm,
    /// Blocks of the launch, on every rank the same.
    pub blocks: usize,
}

/// Below so many bytes the one-shot kernel is ahead, by the number of ranks.
fn one_shot_below(world: usize) -> usize {
    match world {
        0..=2 => usize::MAX,
        3..=4 => 512 << 10,
        _ => 256 << 10,
    }
}

impl Plan {
    /// For so many elements between so many ranks. `in_place` means that the output is the very memory that the peers read.
    pub fn choose(world: usize, elements: usize, dtype: DType, in_place: bool, most_blocks: usize) -> Self {
        let bytes = elements * dtype.size();
        // One-shot reads all inputs to the end while outputs are being written.
        let algorithm =
            if bytes < one_shot_below(world) && !in_place { Algorithm::OneShot } else { Algorithm::TwoShot };
        Self { algorithm, blocks: blocks(bytes, most_blocks) }
    }

    /// Bytes of scratch that the rank with the longest part needs.
    pub fn scratch_bytes(self, world: usize, elements: usize, dtype: DType) -> usize {
        match self.algorithm {
            Algorithm::OneShot | Algorithm::ReduceScatter | Algorithm::AllGather => 0,
            Algorithm::TwoShot => {
                let packs = (elements * dtype.size()).div_ceil(PACK_BYTES);
                (packs - packs / world * (world - 1)) * PACK_BYTES
            }
        }
    }
}

/// One per tile of what each thread moves once.
pub(crate) fn blocks(bytes: usize, most: usize) -> usize {
    bytes.div_ceil(PACK_BYTES * BLOCK_THREADS).clamp(1, most)
}

/// From 2 to 8 ranks; more than two only if every device reaches every other directly.
pub(crate) fn check_topology(world: usize, is_fully_connected: bool) -> Result<(), Error> {
    if !(2..=MAX_RANKS).contains(&world) {
        return Err(Error::World { world });
    }
    if world > 2 && !is_fully_connected {
        return Err(Error::NotFullyConnected { world });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(world: usize, bytes: usize) -> Algorithm {
        Plan::choose(world, bytes / 2, DType::F16, false, 36).algorithm
    }

    #[test]
    fn short_messages_go_in_one_shot_and_two_ranks_always() {
        assert_eq!(choose(2, 64 << 20), Algorithm::OneShot);
        for (world, border) in [(3, 512 << 10), (4, 512 << 10), (5, 256 << 10), (8, 256 << 10)] {
            assert_eq!(choose(world, border - 2), Algorithm::OneShot);
            assert_eq!(choose(world, border), Algorithm::TwoShot);
        }
    }

    #[test]
    fn in_place_is_never_one_shot() {
        assert_eq!(Plan::choose(2, 8, DType::F32, true, 36).algorithm, Algorithm::TwoShot);
    }

    #[test]
    fn a_block_per_tile_of_8_kib() {
        let blocks = |bytes: usize| Plan::choose(2, bytes / 4, DType::F32, false, 36).blocks;
        assert_eq!([blocks(4), blocks(8192), blocks(8196), blocks(1 << 20)], [1, 1, 2, 36]);
    }

    #[test]
    fn scratch_holds_the_longest_part() {
        let plan = Plan { algorithm: Algorithm::TwoShot, blocks: 1 };
        // 11 packs between 4 ranks: 2, 2, 2 and 5.
        assert_eq!(plan.scratch_bytes(4, 41, DType::F32), 5 * 16);
        assert_eq!(plan.scratch_bytes(8, 1, DType::BF16), 16);
    }

    #[test]
    fn more_than_two_ranks_must_be_fully_connected() {
        assert_eq!(check_topology(2, false), Ok(()));
        assert_eq!(check_topology(3, false), Err(Error::NotFullyConnected { world: 3 }));
        assert_eq!(check_topology(7, true), Ok(()));
        assert_eq!(check_topology(1, true), Err(Error::World { world: 1 }));
        assert_eq!(check_topology(9, true), Err(Error::World { world: 9 }));
    }
}
