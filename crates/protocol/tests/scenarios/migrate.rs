//! Migrate, as `collectives/migrate.rs` of the library does it: a slice goes to its reducer and comes back in its slot.

use unisono_protocol::{ArrivalLine, Ended};

use super::machine::{Rank, Space, lines};
use super::platform::{Arc, Region, run_ranks};
use super::waits::Spinning;

/// Who wants the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    ByAll,
    ByRoot(usize),
}

impl Wanted {
    pub(crate) fn by(self, rank: usize) -> bool {
        self == Wanted::ByAll || self == Wanted::ByRoot(rank)
    }
}

struct Pair {
    lines: Vec<ArrivalLine>,
    /// In the memory of each rank, the slot that the other one fills.
    slots: [Region; 2],
    chunks: u64,
    wanted: Wanted,
    space: Space,
}

/// Two ranks reduce `chunks` chunks, one slice each: whoever wants it gets the sum of this chunk.
pub(crate) fn two_ranks_migrate(chunks: u64, wanted: Wanted, space: Space) {
    let slots = [Region::new(0), Region::new(0)];
    run_ranks(2, &Arc::new(Pair { lines: lines(2), slots, chunks, wanted, space }), take_part)
        .expect("nobody aborts");
}

fn take_part(rank: usize, pair: &Pair) -> Result<(), Ended> {
    let peer = 1 - rank;
    let (theirs, own) = (&pair.slots[peer], &pair.slots[rank]);
    let mut written = 0;
    let mut rank = Rank::new(rank, &pair.lines, Spinning, pair.space);
    for chunk in 0..pair.chunks {
        // Hand out.
        rank.open_step()?;
        let last = std::mem::replace(&mut written, rank.step());
        rank.wait_until_passed(1 << peer, last)?;
        theirs.write(value(rank.rank, chunk));
        rank.publish();
        rank.wait_for(1 << peer)?;
        // Reduce the own slice, in place.
        rank.open_step()?;
        let sum = own.read() + value(rank.rank, chunk);
        assert_eq!(sum, value(0, chunk) + value(1, chunk), "chunk {chunk}");
        if pair.wanted.by(peer) {
            own.write(sum);
        }
        rank.publish();
        // Take back.
        if pair.wanted.by(rank.rank) {
            rank.wait_for(1 << peer)?;
            assert_eq!(theirs.read(), value(0, chunk) + value(1, chunk), "chunk {chunk}");
        }
    }
    Ok(())
}

/// What `rank` hands out of a chunk.
pub(crate) fn value(rank: usize, chunk: u64) -> u64 {
    chunk * 10 + rank as u64 + 1
}
