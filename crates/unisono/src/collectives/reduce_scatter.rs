//! Reduce-scatter: rank `r` gets block `r` of the reduction of all ranks' data.
//!
//! Every rank hands block `r` of its input to rank `r`, which reduces it with its own, in rank order.

use std::time::Duration;

use unisono_kernels::Reducer;

use super::all_reduce::Reduction;
use super::blocks::Table;
use super::exchange::Blocks;
use super::run::Run;
use crate::arguments;
use crate::call::{Algorithm, Call};
use crate::error::BoxedResult;
use crate::group::Group;
use crate::memory::{Source, Sources, Target, Targets};
use crate::team::share::Share;

struct Reducing<'a> {
    world: usize,
    rank: usize,
    input: Source<'a>,
    output: Target<'a>,
    table: &'a Table<'a>,
    reducer: Reducer,
    element: usize,
}

impl<'a> Reducing<'a> {
    fn block(&self, rank: usize) -> Source<'a> {
        let (offset, bytes) = self.table.range(rank);
        self.input.part(offset, bytes)
    }
}

impl<'a> Blocks<'a> for Reducing<'a> {
    fn outgoing(&self, peer: usize) -> Source<'a> {
        self.block(peer)
    }

    fn incoming(&self, _peer: usize) -> usize {
        self.table.range(self.rank).1
    }

    fn take<'p>(&self, share: Share, offset: usize, limit: usize, piece: impl Fn(usize) -> Source<'p>) {
        let own = self.block(self.rank).part(offset, limit);
        let (mut sources, mut targets) = (Sources::new(), Targets::new());
        for rank in 0..self.world {
            sources.push(if rank == self.rank { own } else { piece(rank) });
        }
        targets.push(self.output.part(offset, own.len()));
        share.reduce(&self.reducer, &targets, &sources, own.len() / self.element, self.element);
    }
}

/// This rank's `output` becomes its block of the reduction of all ranks' `input`.
pub(crate) fn reduce_scatter(
    group: &Group,
    call: Call,
    input: Source<'_>,
    output: Target<'_>,
    table: &Table<'_>,
    what: Reduction,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let name = call.operation.name();
    let reducer = what.reducer(name)?;
    let (rank, world) = (group.members.rank, group.members.world);
    arguments::overlap(name, input, output, Some(-(table.range(rank).0 as isize)))?;
    let element = what.dtype.size_bytes();
    let mut run = Run::begin(group, call.by(Algorithm::Swap), timeout)?;
    let blocks = Reducing { world, rank, input, output, table, reducer, element };
    run.exchange(&blocks, table.longest(), element)?;
    run.finish();
    Ok(())
}
