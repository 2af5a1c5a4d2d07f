//! Migrate: each slice travels to its reducer and comes back in the same lines.
//!
//! The message is cut into one slice per rank. In the first step every rank copies the slices it does not own
//! into its slots at their reducers. Rank `r` reduces slice `r` from those slots and its own private memory, and
//! writes the result to its private memory and in place into the same slots; in the second step everybody
//! copies the reduced slices out of the slots it had filled, whose lines it will be the next to write.
//! A slot has one sender, so this holds for any number of ranks; the own slice is never copied.

use unisono_kernels::Reducer;

use super::run::Run;
use crate::error::BoxedResult;
use crate::group::layout::LINE;
use crate::memory::{Source, Sources, Target, Targets};

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
        let chunk =
            self.group.parameters.chunk_bytes.min(self.group.layout.migrate_bytes * self.members.world);
        // Slices are rounded up to whole lines; one line per rank less keeps them inside their slots.
        let lines = (chunk / LINE).saturating_sub(self.members.world).max(self.members.world);
        lines * (LINE / element)
    }

    /// Reduce one chunk of `count` elements; `output` is where the result goes on the ranks that want it.
    pub(crate) fn migrate(
        &mut self,
        reducer: &Reducer,
        input: Source<'_>,
        output: Option<Target<'_>>,
        count: usize,
        element: usize,
        wanted: Wanted,
    ) -> BoxedResult<()> {
        let slices = Slices::new(count, self.members.world, element);
        self.hand_out(slices, input)?;
        self.publish();
        self.wait_for(self.members.peers())?;
        self.open_step()?;
        self.reduce_own_slice(reducer, slices, input, output, wanted);
        self.publish();
        if let Some(output) = output {
            self.wait_for(self.members.peers())?;
            self.take_back(slices, output);
        }
        Ok(())
    }

    /// First step: every slice to its reducer, once that one is done with what was in the slot.
    fn hand_out(&mut self, slices: Slices, input: Source<'_>) -> BoxedResult<()> {
        self.open_step()?;
        let step = self.step();
        for reducer in self.others() {
            let written = std::mem::replace(&mut self.steps.migrate_written[reducer], step);
            self.wait_until_passed(1 << reducer, written)?;
            let (offset, bytes) = slices.bytes(reducer);
            let slot = self.members.memory(reducer).migrate(self.members.rank);
            self.in_shares(bytes, |share| share.copy(slot, input.part(offset, bytes)));
        }
        Ok(())
    }

    /// Second step: the own slice, from all ranks in their order, to whoever wants it.
    fn reduce_own_slice(
        &self,
        reducer: &Reducer,
        slices: Slices,
        input: Source<'_>,
        output: Option<Target<'_>>,
        wanted: Wanted,
    ) {
        let members = self.members;
        let (offset, bytes) = slices.bytes(members.rank);
        let (mut sources, mut targets) = (Sources::new(), Targets::new());
        for rank in 0..members.world {
            if rank == members.rank {
                sources.push(input.part(offset, bytes));
            } else {
                let slot = members.own().migrate(rank).part(0, bytes);
                sources.push(slot.as_source());
                if wanted == Wanted::ByAll || wanted == Wanted::ByRoot(rank) {
                    targets.push(slot);
                }
            }
        }
        if let Some(output) = output {
            targets.push(output.part(offset, bytes));
        }
        let (count, element) = (slices.len(members.rank), slices.element);
        self.in_shares(bytes * members.world, |share| {
            share.reduce(reducer, &targets, &sources, count, element);
        });
    }

    /// After the second step: the reduced slices, out of the slots that this rank had filled.
    fn take_back(&self, slices: Slices, output: Target<'_>) {
        for reducer in self.others() {
            let (offset, bytes) = slices.bytes(reducer);
            let slot = self.members.memory(reducer).migrate(self.members.rank);
            self.in_shares(bytes, |share| share.copy(output.part(offset, bytes), slot.as_source()));
        }
    }

    /// The other ranks, beginning with the next: so that not everybody turns to rank 0 first.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, world) = (self.members.rank, self.members.world);
        (1..world).map(move |distance| (rank + distance) % world)
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
