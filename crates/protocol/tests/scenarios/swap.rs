//! Swap, as `collectives/swap.rs` of the library does it: two regions of a pair, whose roles flip with every use.

use unisono_protocol::{ArrivalLine, Ended};

use super::machine::{Rank, Space, lines};
use super::platform::{Arc, Region, run_ranks};
use super::waits::Spinning;

/// Who has something to write in one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Both, as in an all-reduce: no acknowledgement is needed.
    Both,
    /// One side only, as in a reduce to the other; that side waits for nobody's data.
    Only(usize),
}

impl Writers {
    fn include(self, rank: usize) -> bool {
        self == Writers::Both || self == Writers::Only(rank)
    }
}

struct Pair {
    lines: Vec<ArrivalLine>,
    /// One in each rank's memory.
    regions: [Region; 2],
    uses: Vec<Writers>,
    space: Space,
}

/// Two ranks swap once for each of `uses`: what is read is what was written for this use.
pub(crate) fn two_ranks_swap(uses: &[Writers], space: Space) {
    let regions = [Region::new(0), Region::new(0)];
    let pair = Arc::new(Pair { lines: lines(2), regions, uses: uses.to_vec(), space });
    run_ranks(2, &pair, take_part).expect("nobody aborts");
}

fn take_part(rank: usize, pair: &Pair) -> Result<(), Ended> {
    let peer = 1 - rank;
    let region = |in_own_memory: bool| &pair.regions[if in_own_memory { rank } else { peer }];
    let mut written = [0; 2];
    let mut rank = Rank::new(rank, &pair.lines, Spinning, pair.space);
    for (number, writers) in pair.uses.iter().enumerate() {
        rank.open_step()?;
        let flipped = number % 2 == 1;
        if writers.include(rank.rank) {
            let in_own_memory = !flipped;
            let last = std::mem::replace(&mut written[usize::from(in_own_memory)], rank.step());
            rank.wait_until_passed(1 << peer, last)?;
            region(in_own_memory).write(value(rank.rank, number));
        }
        rank.publish();
        if writers.include(peer) {
            rank.wait_for(1 << peer)?;
            assert_eq!(region(flipped).read(), value(peer, number), "use {number}");
        }
    }
    Ok(())
}

fn value(rank: usize, number: usize) -> u64 {
    (number * 2 + rank + 1) as u64
}
