//! Pipeline, as `collectives/pipeline.rs` of the library does it: the next chunk is handed out before the last is taken back.

use unisono_protocol::{ArrivalLine, Ended};

use super::machine::{Rank, Space, lines};
use super::migrate::{Wanted, value};
use super::platform::{Arc, Region, run_ranks};
use super::waits::Spinning;

struct Pair {
    lines: Vec<ArrivalLine>,
    /// In the memory of each rank, the two halves of the slot that the other one fills.
    slots: [[Region; 2]; 2],
    chunks: u64,
    wanted: Wanted,
    space: Space,
}

/// Two ranks reduce `chunks` chunks, one slice each: whoever wants it gets the sum of every chunk.
pub(crate) fn two_ranks_pipeline(chunks: u64, wanted: Wanted, space: Space) {
    let slots = [(); 2].map(|()| [Region::new(0), Region::new(0)]);
    run_ranks(2, &Arc::new(Pair { lines: lines(2), slots, chunks, wanted, space }), take_part)
        .expect("nobody aborts");
}

fn take_part(rank: usize, pair: &Pair) -> Result<(), Ended> {
    let peer = 1 - rank;
    let (theirs, own) = (&pair.slots[peer], &pair.slots[rank]);
    let mut written = [0; 2];
    let mut rank = Rank::new(rank, &pair.lines, Spinning, pair.space);
    let sum_of = |chunk: u64| value(0, chunk) + value(1, chunk);
    for step in 0..=pair.chunks {
        let half = (step % 2) as usize;
        rank.open_step()?;
        if step < pair.chunks {
            let last = std::mem::replace(&mut written[half], rank.step());
            rank.wait_until_passed(1 << peer, last)?;
            theirs[half].write(value(rank.rank, step));
        }
        rank.publish();
        if step < pair.chunks || pair.wanted.by(rank.rank) {
            rank.wait_for(1 << peer)?;
        }
        if step > 0 && pair.wanted.by(rank.rank) {
            assert_eq!(theirs[1 - half].read(), sum_of(step - 1), "chunk {}", step - 1);
        }
        if step < pair.chunks {
            let sum = own[half].read() + value(rank.rank, step);
            assert_eq!(sum, sum_of(step), "chunk {step}");
            if pair.wanted.by(peer) {
                own[half].write(sum);
            }
        }
    }
    Ok(())
}
