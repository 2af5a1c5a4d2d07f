//! All-reduce and reduce: the sum (or another reduction) of all ranks' data, to every rank or to one.

use std::time::Duration;

use unisono_kernels::{DType, ReduceOp, Reducer};

use super::migrate::Wanted;
use super::run::Run;
use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::{BoxedResult, Error};
use crate::group::Group;
use crate::memory::{Source, Sources, Target, Targets, reduce as reduce_memory};

/// What is reduced, of which type and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    pub(crate) count: usize,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
}

impl Reduction {
    pub(crate) fn reducer(self, operation: &'static str) -> BoxedResult<Reducer> {
        Reducer::new(self.dtype, self.op)
            .map_err(|error| Box::new(Error::argument(operation, error.to_string())))
    }
}

/// Every rank's `output` becomes the reduction of all ranks' `input`.
pub(crate) fn all_reduce(
    group: &Group,
    input: Source<'_>,
    output: Target<'_>,
    what: Reduction,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::overlap("all_reduce", input, output, Some(0))?;
    let call = Call::new(Operation::AllReduce);
    reduce_to(group, call, input, Some(output), what, Wanted::ByAll, timeout)
}

/// The root's `output` becomes the reduction of all ranks' `input`; the other ranks have none.
pub(crate) fn reduce(
    group: &Group,
    input: Source<'_>,
    output: Option<Target<'_>>,
    what: Reduction,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::rank("reduce", "root", root, group.members.world)?;
    if let Some(output) = output {
        arguments::overlap("reduce", input, output, Some(0))?;
    }
    let call = Call::new(Operation::Reduce).rooted(root);
    reduce_to(group, call, input, output, what, Wanted::ByRoot(root), timeout)
}

pub(super) fn reduce_to(
    group: &Group,
    call: Call,
    input: Source<'_>,
    output: Option<Target<'_>>,
    what: Reduction,
    wanted: Wanted,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let reducer = what.reducer(call.operation.name())?;
    let element = what.dtype.size_bytes();
    let bytes = arguments::total_bytes(call.operation.name(), what.count, element, 1)?;
    // A single rank stages nothing, so that one step is as good for any size.
    let in_one_step = bytes <= group.parameters.small_bytes || group.members.world == 1;
    let algorithm = if in_one_step { Algorithm::Swap } else { Algorithm::Migrate };
    let call = call.of(what.count, what.dtype).reducing(what.op).by(algorithm);
    let mut run = Run::begin(group, call, timeout)?;
    if algorithm == Algorithm::Swap {
        run.swap_reduce(&reducer, input, output, what.count, element, wanted)?;
    } else {
        let chunk = run.migrate_chunk(element);
        for first in (0..what.count).step_by(chunk) {
            let count = chunk.min(what.count - first);
            let (offset, bytes) = (first * element, count * element);
            let output = output.map(|output| output.part(offset, bytes));
            run.migrate(&reducer, input.part(offset, bytes), output, count, element, wanted)?;
        }
    }
    run.finish();
    Ok(())
}

impl Run<'_> {
    /// One step: everybody hands its whole input to whoever wants the result, who reduces on its own.
    fn swap_reduce(
        &mut self,
        reducer: &Reducer,
        input: Source<'_>,
        output: Option<Target<'_>>,
        count: usize,
        element: usize,
        wanted: Wanted,
    ) -> BoxedResult<()> {
        let swap = self.open_swap()?;
        if let (Wanted::ByRoot(root), None) = (wanted, output) {
            self.look_back(1 << root)?;
        }
        for peer in self.others() {
            if wanted == Wanted::ByAll || wanted == Wanted::ByRoot(peer) {
                crate::memory::copy(self.outbox(swap, peer)?, input);
            }
        }
        self.publish();
        let Some(output) = output else { return Ok(()) };
        self.wait_for(self.members.peers())?;
        let (mut sources, mut targets) = (Sources::new(), Targets::new());
        for rank in 0..self.members.world {
            sources.push(if rank == self.members.rank { input } else { self.inbox(swap, rank) });
        }
        targets.push(output);
        reduce_memory(reducer, &targets, &sources, count, element);
        Ok(())
    }
}
