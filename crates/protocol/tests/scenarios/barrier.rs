//! The barrier of `collectives/broadcast.rs`: nobody leaves before all have come, round after round.

use unisono_protocol::{ArrivalLine, Ended, Wait};

use super::machine::{Rank, Space, lines, words};
use super::platform::{Arc, Region, run_ranks};
#[cfg(loom)]
use super::waits::Hurried;
use super::waits::{Beds, Sleeping, Spinning};

struct Meeting {
    lines: Vec<ArrivalLine>,
    beds: Beds,
    /// What each rank writes before each round: two places that take turns, because a rank that has left a barrier
    /// knows of its peers that they have come to it, hence have read what was there two rounds ago.
    notes: Vec<[Region; 2]>,
    rounds: u64,
}

fn meeting(world: usize, rounds: u64) -> Arc<Meeting> {
    let lines = lines(world);
    let beds = Beds::of(words(&lines));
    let notes = (0..world).map(|_| [Region::new(0), Region::new(0)]).collect();
    Arc::new(Meeting { lines, beds, notes, rounds })
}

/// The ranks look again until all have come.
pub(crate) fn spinning_ranks_meet(world: usize, rounds: u64) {
    let act = |rank, meeting: &Meeting| attend(rank, meeting, Spinning);
    run_ranks(world, &meeting(world, rounds), act).expect("nobody aborts");
}

/// The ranks sleep until all have come.
pub(crate) fn sleeping_ranks_meet(world: usize, rounds: u64) {
    let act = |rank, meeting: &Meeting| attend(rank, meeting, Sleeping(&meeting.beds));
    run_ranks(world, &meeting(world, rounds), act).expect("nobody aborts");
}

/// The ranks look again a few times, then give up. Returns whether all of them met to the end.
#[cfg(loom)]
pub(crate) fn hurried_ranks_meet(world: usize, rounds: u64) -> bool {
    let act = |rank, meeting: &Meeting| attend(rank, meeting, Hurried::default());
    run_ranks(world, &meeting(world, rounds), act).is_ok()
}

fn attend(rank: usize, meeting: &Meeting, wait: impl Wait) -> Result<(), Ended> {
    let mut rank = Rank::new(rank, &meeting.lines, wait, Space::Kept);
    for round in 1..=meeting.rounds {
        let place = (round % 2) as usize;
        meeting.notes[rank.rank][place].write(round);
        rank.open_step()?;
        rank.publish();
        rank.wait_for(rank.peers())?;
        for note in &meeting.notes {
            assert_eq!(note[place].read(), round, "what a rank wrote before the barrier");
        }
    }
    Ok(())
}
