//! Push, as `collectives/push.rs` of the library does it: each rank reduces its slice of all ranks' memories in place.

use unisono_protocol::{ArrivalLine, Ended};

use super::machine::{Rank, Space, lines};
use super::platform::{Arc, Region, run_ranks};
use super::waits::Spinning;

/// Which of the two steps a rank waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Both,
    /// Not for the peers' inputs: a seeded bug.
    #[cfg_attr(not(loom), allow(dead_code, reason = "a race is only ever run where it cannot do harm"))]
    OnlyAfter,
    /// Not for the peers' results: a seeded bug.
    #[cfg_attr(not(loom), allow(dead_code, reason = "a race is only ever run where it cannot do harm"))]
    OnlyBefore,
}

struct Registered {
    lines: Vec<ArrivalLine>,
    /// Per rank its memory, one region for each slice.
    memories: Vec<Vec<Region>>,
    rounds: u64,
    waits: Waits,
}

/// Ranks produce, push and consume `rounds` times: each consumes the sums of this round.
pub(crate) fn ranks_push(world: usize, rounds: u64, waits: Waits) {
    let memory = || (0..world).map(|_| Region::new(0)).collect();
    let memories = (0..world).map(|_| memory()).collect();
    run_ranks(world, &Arc::new(Registered { lines: lines(world), memories, rounds, waits }), take_part)
        .expect("nobody aborts");
}

fn take_part(rank: usize, registered: &Registered) -> Result<(), Ended> {
    let Registered { memories, waits, .. } = registered;
    let world = memories.len();
    let mut rank = Rank::new(rank, &registered.lines, Spinning, Space::Kept);
    for round in 0..registered.rounds {
        // Produce.
        for (slice, region) in memories[rank.rank].iter().enumerate() {
            region.write(value(rank.rank, slice, round));
        }
        // The input is there.
        rank.open_step()?;
        rank.publish();
        if *waits != Waits::OnlyAfter {
            rank.wait_for(rank.peers())?;
        }
        // Reduce the own slice, in place on all ranks' memories.
        let slice = rank.rank;
        let sum = memories.iter().map(|memory| memory[slice].read()).sum();
        memories.iter().for_each(|memory| memory[slice].write(sum));
        // The result is there.
        rank.open_step()?;
        rank.publish();
        if *waits != Waits::OnlyBefore {
            rank.wait_for(rank.peers())?;
        }
        // Consume.
        for (slice, region) in memories[rank.rank].iter().enumerate() {
            let expected = (0..world).map(|rank| value(rank, slice, round)).sum::<u64>();
            assert_eq!(region.read(), expected, "slice {slice} in round {round}");
        }
    }
    Ok(())
}

fn value(rank: usize, slice: usize, round: u64) -> u64 {
    round * 100 + rank as u64 * 10 + slice as u64 + 1
}
