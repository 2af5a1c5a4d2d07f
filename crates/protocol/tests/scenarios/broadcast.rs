//! Broadcast, as `collectives/broadcast.rs` of the library does it: two buffers of the root, which runs ahead.

use unisono_protocol::{ArrivalLine, Ended, Wait};

use super::machine::{Rank, Space, lines};
use super::platform::{Arc, Region, run_ranks};
#[cfg(loom)]
use super::waits::Hurried;
use super::waits::Spinning;

struct Audience {
    lines: Vec<ArrivalLine>,
    buffers: [Region; 2],
    pieces: u64,
    space: Space,
}

fn audience(readers: usize, pieces: u64, space: Space) -> Arc<Audience> {
    let buffers = [Region::new(0), Region::new(0)];
    Arc::new(Audience { lines: lines(readers + 1), buffers, pieces, space })
}

/// Rank 0 sends `pieces` pieces to `readers` others, and waits for them only where a buffer comes up again.
pub(crate) fn root_runs_ahead(readers: usize, pieces: u64, space: Space) {
    let act = |rank, audience: &Audience| take_part(rank, audience, Spinning);
    run_ranks(readers + 1, &audience(readers, pieces, space), act).expect("nobody aborts");
}

/// The same, where each rank gives up after a few looks. Returns whether all pieces came to all.
#[cfg(loom)]
pub(crate) fn root_runs_ahead_of_the_hurried(readers: usize, pieces: u64) -> bool {
    let act = |rank, audience: &Audience| take_part(rank, audience, Hurried::default());
    run_ranks(readers + 1, &audience(readers, pieces, Space::Kept), act).is_ok()
}

fn take_part(rank: usize, audience: &Audience, wait: impl Wait) -> Result<(), Ended> {
    let mut written = [0; 2];
    let mut rank = Rank::new(rank, &audience.lines, wait, audience.space);
    for piece in 0..audience.pieces {
        rank.open_step()?;
        let buffer = (piece % 2) as usize;
        if rank.rank == 0 {
            rank.look_back(rank.peers())?;
            let last = std::mem::replace(&mut written[buffer], rank.step());
            rank.wait_until_passed(rank.peers(), last)?;
            audience.buffers[buffer].write(piece + 1);
            rank.publish();
        } else {
            rank.publish();
            rank.wait_for(1)?;
            assert_eq!(audience.buffers[buffer].read(), piece + 1, "piece {piece}");
        }
    }
    Ok(())
}
