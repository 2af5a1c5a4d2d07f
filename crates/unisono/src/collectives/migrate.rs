//! Migrate: each slice travels to its reducer and comes back in the same lines.
//!
//! The message is cut into one slice per rank. In the first step every rank copies the slices it does not own
//! into its slots at their reducers. Rank `r` reduces slice `r` from those slots and its own private memory, and
//! writes the result to its private memory and in place into the same slots; in the second step everybody
//! copies the reduced slices out of the slots it had filled, whose lines it will be the next to write.
//! A slot has one sender, so this holds for any number of ranks; the own slice is never copied.

use super::all_reduce::Reduced;
use super::run::Run;
use crate::error::BoxedResult;
use crate::group::layout::LINE;
use crate::memory::{Sources, Target, Targets};

/// How a chunk is cut into slices: `count` elements, one slice per rank, whole cache lines but for the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slices {
    count: usize,
    per_slice: usize,
    element: usize,
}

impl Slices {
    pub(crate) fn new(count: usize, world: usize, element: usize) -> Self {
        Slices { count, per_slice: count.div_ceil(world).next_multiple_of(LINE / element), element }
    }

    /// Elements in slice `rank`; the last ones may be shorter or empty.
    pub(crate) fn len(self, rank: usize) -> usize {
        self.count.saturating_sub(rank * self.per_slice).min(self.per_slice)
    }

    /// Where slice `rank` lies in the chunk, in bytes: offset and length.
    fn bytes(self, rank: usize) -> (usize, usize) {
        (rank * self.per_slice * self.element, self.len(rank) * self.element)
    }

    /// The largest chunk, in elements, whose slices fit in `room` bytes each.
    pub(crate) fn largest_chunk(room: usize, world: usize, element: usize) -> usize {
        // Slices are rounded up to whole lines; one line per rank less keeps them inside.
        let lines = (room.saturating_mul(world) / LINE).saturating_sub(world).max(world);
        lines * (LINE / element)
    }
}

/// The part of every slot that a chunk goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Whole,
    /// The first half for even numbers, the second for odd ones.
    Half(usize),
}

impl Part {
    fn of(self, slot: Target<'_>) -> Target<'_> {
        match self {
            Part::Whole => slot,
            Part::Half(index) => {
                let half = slot.len() / 2 / LINE * LINE;
                slot.part(index % 2 * half, half)
            }
        }
    }

    /// Note that this part is written in `step`; returns when it was written last.
    fn mark(self, written: &mut [u64; 2], step: u64) -> u64 {
        match self {
            Part::Whole => std::mem::replace(written, [step; 2]).into_iter().max().unwrap_or(0),
            Part::Half(index) => std::mem::replace(&mut written[index % 2], step),
        }
    }
}

/// Who wants the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    ByAll,
    ByRoot(usize),
}

impl Run<'_> {
    /// Elements that one chunk may have.
    pub(crate) fn migrate_chunk(&self, element: usize) -> usize {
        Slices::largest_chunk(self.group.layout.migrate_bytes, self.members.world, element)
    }

    /// Reduce one chunk.
    pub(crate) fn migrate(&mut self, chunk: Reduced<'_>) -> BoxedResult<()> {
        let slices = self.slices_of(chunk);
        self.open_step()?;
        self.hand_out(slices, Part::Whole, chunk)?;
        self.publish();
        self.wait_for(self.members.peers())?;
        self.open_step()?;
        self.reduce_own_slice(slices, Part::Whole, chunk);
        self.publish();
        if let Some(output) = chunk.output {
            self.wait_for(self.members.peers())?;
            self.take_back(slices, Part::Whole, output);
        }
        Ok(())
    }

    pub(crate) fn slices_of(&self, chunk: Reduced<'_>) -> Slices {
        Slices::new(chunk.count, self.members.world, chunk.element)
    }

    /// In an open step: every slice to its reducer, once that one is done with what was in this part of the slot.
    pub(crate) fn hand_out(&mut self, slices: Slices, part: Part, chunk: Reduced<'_>) -> BoxedResult<()> {
        let step = self.step();
        for reducer in self.others() {
            let written = part.mark(&mut self.steps.migrate_written[reducer], step);
            self.wait_until_passed(1 << reducer, written)?;
            let (offset, bytes) = slices.bytes(reducer);
            let slot = part.of(self.members.memory(reducer).migrate(self.members.rank));
            self.in_shares(bytes, |share| share.copy(slot, chunk.input.part(offset, bytes)));
        }
        Ok(())
    }

    /// Once all have handed out: the own slice, from all ranks in their order, to whoever wants it.
    pub(crate) fn reduce_own_slice(&self, slices: Slices, part: Part, chunk: Reduced<'_>) {
        let members = self.members;
        let (offset, bytes) = slices.bytes(members.rank);
        let (mut sources, mut targets) = (Sources::new(), Targets::new());
        for rank in 0..members.world {
            if rank == members.rank {
                sources.push(chunk.input.part(offset, bytes));
            } else {
                let slot = part.of(members.own().migrate(rank)).part(0, bytes);
                sources.push(slot.as_source());
                if chunk.wanted == Wanted::ByAll || chunk.wanted == Wanted::ByRoot(rank) {
                    targets.push(slot);
                }
            }
        }
        if let Some(output) = chunk.output {
            targets.push(output.part(offset, bytes));
        }
        let (count, element) = (slices.len(members.rank), slices.element);
        self.in_shares(bytes * members.world, |share| {
            share.reduce(chunk.reducer, &targets, &sources, count, element);
        });
    }

    /// Once all have reduced: the results, out of the slots that this rank had filled.
    pub(crate) fn take_back(&self, slices: Slices, part: Part, output: Target<'_>) {
        for reducer in self.others() {
            let (offset, bytes) = slices.bytes(reducer);
            let slot = part.of(self.members.memory(reducer).migrate(self.members.rank));
            self.in_shares(bytes, |share| share.copy(output.part(offset, bytes), slot.as_source()));
        }
    }

    /// The other ranks, beginning with the next: so that not everybody turns to rank 0 first.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let world = self.members.world;
        let mut last = self.members.rank;
        (1..world).map(move |_| {
            last = if last + 1 == world { 0 } else { last + 1 };
            last
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_element_once() {
        for element in [1usize, 2, 4, 8] {
            for world in [1usize, 2, 3, 7, 64] {
                for count in [0usize, 1, 2, 31, 64, 1000, 4097] {
                    let slices = Slices::new(count, world, element);
                    let mut next = 0;
                    for rank in 0..world {
                        let (offset, bytes) = slices.bytes(rank);
                        assert!(
                            bytes == 0 || offset == next,
                            "slice {rank} of {count} x {element} over {world}"
                        );
                        next += bytes;
                    }
                    assert_eq!(next, count * element);
                }
            }
        }
    }
}
