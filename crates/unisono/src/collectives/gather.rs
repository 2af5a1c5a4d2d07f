//! All-gather, gather, scatter and all-to-all: blocks that change hands and are not reduced.
//!
//! The even and the uneven forms are the same: the blocks of the uneven ones lie end to end at the offsets
//! that the lengths add up to. Where only some ranks know the lengths (gather, scatter and all-to-all with a length
//! per rank or pair), a first step tells everybody the longest block and compares what sender and
//! receiver believe.

use std::time::Duration;

use unisono_kernels::DType;

use super::blocks::Table;
use super::exchange::Copies;
use super::run::Run;
use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::BoxedResult;
use crate::group::Group;
use crate::memory::{Rows, Source, Target};

/// How the gathered blocks lie in the output of an all-gather.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Along {
    /// Bytes of one rank's row, and how many rows a block has.
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
}

/// Every rank's `output` becomes all ranks' `input`, in rank order; `along` interleaves rows instead.
pub(crate) fn all_gather(
    group: &Group,
    call: Call,
    input: Source<'_>,
    output: Target<'_>,
    blocks: &Table<'_>,
    along: Option<Along>,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    let (own_offset, own_bytes) = blocks.range(rank);
    let name = call.operation.name();
    let in_place = if along.is_some() { None } else { Some(own_offset as isize) };
    arguments::overlap(name, input, output, in_place)?;
    let rows = along.map(|along| Rows { row_bytes: along.row_bytes, stride: along.row_bytes * world });
    let place = |peer: usize| match along {
        None => {
            let (offset, bytes) = blocks.range(peer);
            output.part(offset, bytes)
        }
        Some(along) if along.rows > 0 => output.part(peer * along.row_bytes, usize::MAX),
        Some(_) => output.part(0, 0),
    };
    let element = call.dtype.map_or(1, DType::size_bytes);
    let mut run = Run::begin(group, call.by(Algorithm::Swap), timeout)?;
    let copies = Copies {
        world,
        rank,
        outgoing: |_| input,
        incoming: place,
        rows: rows.map(|rows| (rows, own_bytes)),
    };
    run.exchange(&copies, blocks.longest(), element)?;
    run.finish();
    Ok(())
}

/// Block `r` of this rank's input goes to rank `r`; block `r` of the output comes from rank `r`.
pub(crate) fn all_to_all(
    group: &Group,
    call: Call,
    input: Source<'_>,
    output: Target<'_>,
    send: &Table<'_>,
    receive: &Table<'_>,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    // Where the lengths differ, a block in place could be overwritten before it was sent.
    let in_place = (call.operation == Operation::AllToAll).then_some(0);
    arguments::overlap(call.operation.name(), input, output, in_place)?;
    let element = call.dtype.map_or(1, DType::size_bytes);
    let mut run = Run::begin(group, call.by(Algorithm::Swap), timeout)?;
    let longest = match call.operation {
        Operation::AllToAll => send.longest(),
        _ => run.agree_on_longest(
            |peer| send.range(peer).1,
            |peer| Some(receive.range(peer).1),
            send.longest(),
            element,
        )?,
    };
    let block = |table: &Table<'_>, peer| table.range(peer);
    let copies = Copies {
        world,
        rank,
        outgoing: |peer| {
            let (offset, bytes) = block(send, peer);
            input.part(offset, bytes)
        },
        incoming: |peer| {
            let (offset, bytes) = block(receive, peer);
            output.part(offset, bytes)
        },
        rows: None,
    };
    run.exchange(&copies, longest, element)?;
    run.finish();
    Ok(())
}

/// The root's `output` becomes all ranks' `input`, in rank order.
pub(crate) fn gather(
    group: &Group,
    call: Call,
    input: Source<'_>,
    output: Option<(Target<'_>, &Table<'_>)>,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    if let Some((output, blocks)) = output {
        arguments::overlap(call.operation.name(), input, output, Some(blocks.range(rank).0 as isize))?;
    }
    let element = call.dtype.map_or(1, DType::size_bytes);
    let mut run = Run::begin(group, call.by(Algorithm::Swap), timeout)?;
    let longest = match call.operation {
        Operation::Gather => input.len(),
        _ => run.agree_on_longest(
            |peer| if peer == root { input.len() } else { 0 },
            |peer| output.map(|(_, blocks)| blocks.range(peer).1),
            input.len(),
            element,
        )?,
    };
    let place = |peer| {
        output.map(|(output, blocks)| {
            let (offset, bytes) = blocks.range(peer);
            output.part(offset, bytes)
        })
    };
    let nowhere = Target::of::<u8>(&mut []);
    let copies = Copies {
        world,
        rank,
        outgoing: |peer| input.part(0, if peer == root { usize::MAX } else { 0 }),
        incoming: |peer| place(peer).unwrap_or(nowhere),
        rows: None,
    };
    run.exchange(&copies, longest, element)?;
    run.finish();
    Ok(())
}

/// Rank `r`'s `output` becomes block `r` of the root's `input`.
pub(crate) fn scatter(
    group: &Group,
    call: Call,
    input: Option<(Source<'_>, &Table<'_>)>,
    output: Target<'_>,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let (rank, world) = (group.members.rank, group.members.world);
    if let Some((input, blocks)) = input {
        arguments::overlap(call.operation.name(), input, output, Some(-(blocks.range(rank).0 as isize)))?;
    }
    let element = call.dtype.map_or(1, DType::size_bytes);
    let mut run = Run::begin(group, call.by(Algorithm::Swap), timeout)?;
    let block = |peer| {
        input.map_or(Source::of::<u8>(&[]), |(input, blocks)| {
            let (offset, bytes) = blocks.range(peer);
            input.part(offset, bytes)
        })
    };
    let longest = match call.operation {
        Operation::Scatter => output.len(),
        _ => run.agree_on_longest(
            |peer| block(peer).len(),
            |peer| (peer == root).then_some(output.len()),
            input.map_or(0, |(_, blocks)| blocks.longest()),
            element,
        )?,
    };
    let copies = Copies {
        world,
        rank,
        outgoing: block,
        incoming: |peer| output.part(0, if peer == root { usize::MAX } else { 0 }),
        rows: None,
    };
    run.exchange(&copies, longest, element)?;
    run.finish();
    Ok(())
}

impl Run<'_> {
    /// Tell every peer how much goes to it and how long the longest own block is; see that what comes is what this rank
    /// expects (where it knows); return the longest block anywhere, in bytes.
    fn agree_on_longest(
        &mut self,
        sends: impl Fn(usize) -> usize,
        expects: impl Fn(usize) -> Option<usize>,
        longest: usize,
        element: usize,
    ) -> BoxedResult<usize> {
        let numbers = self.exchange_numbers(|peer| [sends(peer) as u64, longest as u64])?;
        for peer in self.others() {
            let Some(expected) = expects(peer) else { continue };
            if numbers[peer][0] != expected as u64 {
                let theirs = usize::try_from(numbers[peer][0]).unwrap_or(usize::MAX);
                return Err(self.length_mismatch(peer, expected / element, theirs / element));
            }
        }
        let longest = numbers.iter().map(|[_, longest]| *longest).max().unwrap_or(0);
        // No block is longer than memory: a peer that says so lies, and the deadline would end it.
        Ok(usize::try_from(longest).unwrap_or(usize::MAX).min(isize::MAX as usize))
    }
}
