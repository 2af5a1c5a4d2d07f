//! Swap, as `collectives/swap.rs` of the library does it: two regions of a pair, whose roles flip with every use.

use unisono_protocol::{ArrivalLine, Ended, Tag};

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

/// How a reader learns that a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// From the writer's arrival line.
    Plain,
    /// From the message's own tag.
    Packets,
    /// The same, but the tag is written before the data: the seeded bug of the tests that show the models have teeth.
    #[cfg_attr(not(loom), allow(dead_code, reason = "a race is only ever run where it cannot do harm"))]
    PacketsTaggedTooEarly,
}

struct Pair {
    lines: Vec<ArrivalLine>,
    /// One in each rank's memory, and the tag of each.
    regions: [Region; 2],
    tags: [Tag; 2],
    messages: Messages,
    uses: Vec<Writers>,
    space: Space,
}

/// Two ranks swap once for each of `uses`: what is read is what was written for this use.
pub(crate) fn two_ranks_swap(uses: &[Writers], messages: Messages, space: Space) {
    let regions = [Region::new(0), Region::new(0)];
    let tags = [Tag::default(), Tag::default()];
    let pair = Arc::new(Pair { lines: lines(2), regions, tags, messages, uses: uses.to_vec(), space });
    run_ranks(2, &pair, take_part).expect("nobody aborts");
}

fn take_part(rank: usize, pair: &Pair) -> Result<(), Ended> {
    let peer = 1 - rank;
    let home = |in_own_memory: bool| if in_own_memory { rank } else { peer };
    let region = |in_own_memory: bool| &pair.regions[home(in_own_memory)];
    let tag = |in_own_memory: bool| &pair.tags[home(in_own_memory)];
    let mut written = [0; 2];
    let mut rank = Rank::new(rank, &pair.lines, Spinning, pair.space);
    for (number, writers) in pair.uses.iter().enumerate() {
        rank.open_step()?;
        let flipped = number % 2 == 1;
        if writers.include(rank.rank) {
            let in_own_memory = !flipped;
            let last = std::mem::replace(&mut written[usize::from(in_own_memory)], rank.step());
            rank.wait_until_passed(1 << peer, last)?;
            if pair.messages == Messages::PacketsTaggedTooEarly {
                rank.announce(tag(in_own_memory));
            }
            region(in_own_memory).write(value(rank.rank, number));
            if pair.messages == Messages::Packets {
                rank.announce(tag(in_own_memory));
            }
        }
        rank.publish();
        if writers.include(peer) {
            match pair.messages {
                Messages::Plain => rank.wait_for(1 << peer)?,
                Messages::Packets | Messages::PacketsTaggedTooEarly => {
                    rank.wait_for_message(peer, tag(flipped))?
                }
            }
            assert_eq!(region(flipped).read(), value(peer, number), "use {number}");
        }
    }
    Ok(())
}

fn value(rank: usize, number: usize) -> u64 {
    (number * 2 + rank + 1) as u64
}
