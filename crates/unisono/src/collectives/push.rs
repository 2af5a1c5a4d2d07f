//! Push: operations on registered memory, in place on the memory of all ranks and without staging.
//!
//! Each rank works on a portion of the data that nobody else touches in this call: it reads the portion from those ranks'
//! memories that have the input, and stores the result to those that want it. Two steps around it say when:
//!
//! ```text
//!   publish, wait for all      every rank's memory holds its input, and nobody uses it
//!   reduce or copy the portion from and to all ranks' memories
//!   publish, wait for all      every rank's memory holds its result, and nobody else uses it
//! ```
//!
//! | operation | portion of rank r | read from | stored to |
//! |---|---|---|---|
//! | all-reduce | slice r | all | all |
//! | reduce | slice r | all | the root |
//! | broadcast | slice r | the root | all others |
//! | reduce-scatter | block r | all | r |
//! | all-gather | block r | r | all others |
//!
//! A line that is read here was just written by its owner and will be written here. Where that pays
//! ([`kernels::asking_ahead_pays`]) it is asked for a little ahead, to be written, so that it crosses between the cores once.
//! What is smaller than that pays for goes the ordinary way, through staging, which waits once.
//!
//! Source: ownership migration of cache lines, as for swap and migrate.

use std::time::Duration;

use unisono_kernels::{self as kernels, DType, ReduceOp, Reducer};

use super::all_reduce::{Reduction, reduce_to};
use super::blocks::Table;
use super::migrate::Wanted;
use super::run::Run;
use super::{broadcast, gather, reduce_scatter};
use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::BoxedResult;
use crate::fault;
use crate::group::Group;
use crate::group::allocation::Allocation;
use crate::group::layout::LINE;
use crate::memory::{Sources, Target, Targets, copy, reduce};
use crate::team::share::Share;

/// How much is reduced or copied at a time.
const BLOCK: usize = 2048;
/// How far ahead of it lines are asked for.
const AHEAD: usize = 2 * BLOCK;

/// How many times as much it takes until push pays where each byte crosses once. Measured with two ranks on far cores: all-reduce
/// gains from 64 KiB on, the others from 2 MiB on.
const ONE_WAY: usize = 32;

/// A part of registered memory: the same on all ranks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) allocation: &'a Allocation,
    /// The first element, and how many there are.
    pub(crate) offset: usize,
    pub(crate) count: usize,
    pub(crate) dtype: DType,
}

impl<'a> Part<'a> {
    fn element(self) -> usize {
        self.dtype.size_bytes()
    }

    fn bytes(self) -> usize {
        self.count * self.element()
    }

    /// It in the memory of `rank`.
    fn of(self, rank: usize) -> Target<'a> {
        self.allocation.part(rank).part(self.offset * self.element(), self.bytes())
    }

    /// A call of `count` elements (per rank) on this part.
    fn call(self, operation: Operation, count: usize) -> Call {
        Call::new(operation).of(count, self.dtype).placed(self.allocation.number, self.offset)
    }

    /// A block for each rank, end to end.
    fn block(self, world: usize) -> usize {
        self.bytes() / world
    }

    /// Slice `rank` of as many as there are ranks, in bytes: offset and length. It begins and ends with a cache line,
    /// but for the ends of the part, so that no two ranks write one line.
    fn slice(self, rank: usize, world: usize) -> (usize, usize) {
        let (start, bytes) = (self.offset * self.element(), self.bytes());
        let cut = |slices: usize| match slices {
            0 => 0,
            all if all == world => bytes,
            _ => ((start + bytes.div_ceil(world) * slices).next_multiple_of(LINE) - start).min(bytes),
        };
        (cut(rank), cut(rank + 1) - cut(rank))
    }
}

/// Whether this much is worth two waits: the same on all ranks. Where each byte crosses between two cores once, push saves
/// one copy through staging, which counts only where that no longer stays in the caches.
fn is_worth_it(group: &Group, part: Part<'_>, operation: Operation) -> bool {
    let from = match operation {
        Operation::AllReduce => group.parameters.push_bytes,
        _ => group.parameters.push_bytes.saturating_mul(ONE_WAY),
    };
    group.members.world > 1 && part.bytes() >= from
}

/// Every rank's part becomes the reduction of all ranks' parts.
pub(crate) fn all_reduce(
    group: &Group,
    part: Part<'_>,
    op: ReduceOp,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let call = part.call(Operation::AllReduce, part.count);
    reduce_for(group, part, call, op, Wanted::ByAll, timeout)
}

/// The root's part becomes the reduction of all ranks' parts.
pub(crate) fn reduce_to_root(
    group: &Group,
    part: Part<'_>,
    op: ReduceOp,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::rank("reduce", "root", root, group.members.world)?;
    let call = part.call(Operation::Reduce, part.count).rooted(root);
    reduce_for(group, part, call, op, Wanted::ByRoot(root), timeout)
}

fn reduce_for(
    group: &Group,
    part: Part<'_>,
    call: Call,
    op: ReduceOp,
    wanted: Wanted,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let what = Reduction { count: part.count, dtype: part.dtype, op };
    let (rank, world) = (group.members.rank, group.members.world);
    if !is_worth_it(group, part, call.operation) {
        let data = part.of(rank);
        let output = (wanted == Wanted::ByAll || wanted == Wanted::ByRoot(rank)).then_some(data);
        return reduce_to(group, call, data.as_source(), output, what, wanted, timeout);
    }
    let reducer = what.reducer(call.operation.name())?;
    let targets = match wanted {
        Wanted::ByAll => Ranks::All,
        Wanted::ByRoot(root) => Ranks::Only(root),
    };
    let portion = Portion { part, range: part.slice(rank, world), targets };
    push(group, call.reducing(op), timeout, portion, |share| portion.reduce(share, world, &reducer))
}

/// Block `r` of rank `r`'s part becomes that of the reduction of all ranks' parts.
pub(crate) fn reduce_scatter(
    group: &Group,
    part: Part<'_>,
    op: ReduceOp,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    let block = part.block(world);
    let what = Reduction { count: part.count / world, dtype: part.dtype, op };
    let call = part.call(Operation::ReduceScatter, what.count).reducing(op);
    if !is_worth_it(group, part, Operation::ReduceScatter) {
        let data = part.of(rank);
        let (output, table) = (data.part(rank * block, block), Table::Even(block));
        return reduce_scatter::reduce_scatter(group, call, data.as_source(), output, &table, what, timeout);
    }
    let reducer = what.reducer(call.operation.name())?;
    let portion = Portion { part, range: (rank * block, block), targets: Ranks::Only(rank) };
    push(group, call, timeout, portion, |share| portion.reduce(share, world, &reducer))
}

/// Block `r` of every rank's part becomes that of rank `r`.
pub(crate) fn all_gather(group: &Group, part: Part<'_>, timeout: Option<Duration>) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    let block = part.block(world);
    let call = part.call(Operation::AllGather, part.count / world);
    if !is_worth_it(group, part, Operation::AllGather) {
        let data = part.of(rank);
        let input = data.as_source().part(rank * block, block);
        return gather::all_gather(group, call, input, data, &Table::Even(block), None, timeout);
    }
    let portion = Portion { part, range: (rank * block, block), targets: Ranks::AllBut(rank) };
    push(group, call, timeout, portion, |share| portion.copy(share, world, rank))
}

/// Every rank's part becomes the root's.
pub(crate) fn broadcast(
    group: &Group,
    part: Part<'_>,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    arguments::rank("broadcast", "root", root, world)?;
    let call = part.call(Operation::Broadcast, part.count).rooted(root);
    if !is_worth_it(group, part, Operation::Broadcast) {
        return broadcast::broadcast_as(group, call, part.of(rank), root, timeout);
    }
    let portion = Portion { part, range: part.slice(rank, world), targets: Ranks::AllBut(root) };
    push(group, call, timeout, portion, |share| portion.copy(share, world, root))
}

/// The two steps around the work on the own portion.
fn push(
    group: &Group,
    call: Call,
    timeout: Option<Duration>,
    portion: Portion<'_>,
    work: impl Fn(Share) + Sync,
) -> BoxedResult<()> {
    let mut run = Run::begin(group, call.by(Algorithm::Push), timeout)?;
    run.meet()?;
    run.in_shares(portion.range.1 * group.members.world, work);
    run.meet()?;
    run.finish();
    Ok(())
}

impl Run<'_> {
    /// A step that waits for all: what they did before it, this rank sees after it.
    fn meet(&mut self) -> BoxedResult<()> {
        self.open_step()?;
        self.publish();
        self.wait_for(self.members.peers())
    }
}

/// Some of the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranks {
    All,
    AllBut(usize),
    Only(usize),
}

impl Ranks {
    fn include(self, rank: usize) -> bool {
        match self {
            Ranks::All => true,
            Ranks::AllBut(other) => rank != other,
            Ranks::Only(only) => rank == only,
        }
    }
}

/// What this rank works on: a range of the part, in bytes (offset and length), which no other rank touches.
#[derive(Clone, Copy, Debug)]
struct Portion<'a> {
    part: Part<'a>,
    range: (usize, usize),
    targets: Ranks,
}

impl<'a> Portion<'a> {
    /// It in the memory of `rank`.
    fn of(self, rank: usize) -> Target<'a> {
        self.part.of(rank).part(self.range.0, self.range.1)
    }

    fn targets(self, world: usize) -> impl Iterator<Item = Target<'a>> {
        (0..world).filter(move |rank| self.targets.include(*rank)).map(move |rank| self.of(rank))
    }

    /// Reduce all ranks' memories to those that want it.
    fn reduce(self, share: Share, world: usize, reducer: &Reducer) {
        let element = self.part.element();
        self.by_blocks(share, world, |offset, bytes| {
            let (mut sources, mut targets) = (Sources::new(), Targets::new());
            (0..world).for_each(|rank| sources.push(self.of(rank).part(offset, bytes).as_source()));
            self.targets(world).for_each(|target| targets.push(target.part(offset, bytes)));
            reduce(reducer, &targets, &sources, bytes / element, element);
        });
    }

    /// Copy one rank's memory to those that want it.
    fn copy(self, share: Share, world: usize, from: usize) {
        self.by_blocks(share, world, |offset, bytes| {
            let source = self.of(from).part(offset, bytes).as_source();
            self.targets(world).for_each(|target| copy(target.part(offset, bytes), source));
        });
    }

    /// Work on block after block.
    fn by_blocks(self, share: Share, world: usize, work: impl Fn(usize, usize)) {
        let ask_for = |offset, bytes| {
            self.targets(world).for_each(|target| target.part(offset, bytes).fetch_for_write());
        };
        let asks = kernels::asking_ahead_pays();
        let (first, bytes) = share.part(self.range.1);
        let end = first + bytes;
        if asks {
            ask_for(first, AHEAD.min(bytes));
        }
        for offset in (first..end).step_by(BLOCK) {
            if asks {
                ask_for(offset + AHEAD, BLOCK.min(end.saturating_sub(offset + AHEAD)));
            }
            work(offset, BLOCK.min(end - offset));
            fault::reach("amid_push");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::group::backend::in_process;
    use crate::parameters::Parameters;

    #[test]
    fn slices_cover_every_byte_once_and_are_cut_at_lines() {
        let group = in_process::assemble(1, &Parameters::for_world(1)).unwrap().remove(0);
        let allocation = Allocation::new(&Group::new(group), 1 << 20, DType::U8, None).unwrap();
        for dtype in [DType::U8, DType::BF16, DType::F64] {
            for world in [2usize, 3, 7, 64] {
                for (offset, count) in [(0usize, 0usize), (0, 1), (3, 5000), (64, 4096), (1, 77), (9, 6001)] {
                    let part = Part { allocation: &allocation, offset, count, dtype };
                    let mut next = 0;
                    for rank in 0..world {
                        let (start, bytes) = part.slice(rank, world);
                        assert_eq!(start, next, "slice {rank} of {part:?} over {world}");
                        let at = offset * dtype.size_bytes() + start;
                        assert!(start == 0 || start == part.bytes() || at.is_multiple_of(LINE));
                        next += bytes;
                    }
                    assert_eq!(next, part.bytes());
                }
            }
        }
    }
}
