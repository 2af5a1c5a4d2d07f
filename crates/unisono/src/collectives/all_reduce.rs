//! All-reduce and reduce: the sum (or another reduction) of all ranks' data, to every rank or to one.

use std::time::Duration;

use unisono_kernels::{DType, ReduceOp, Reducer};

use super::migrate::Wanted;
use super::run::Run;
use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::{BoxedResult, Error};
use crate::group::Group;
use crate::memory::{Source, Sources, Target, Targets};

/// What is reduced, of which type and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    pub(crate) count: usize,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
}

impl Reduction {
    #[inline(always)]
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

// Always: most fields of the call are constants of the caller.
#[inline(always)]
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
    let algorithm = group.parameters.reduction_by(bytes, group.members.world);
    let call = call.of(what.count, what.dtype).reducing(what.op).by(algorithm);
    let mut run = Run::begin(group, call, timeout)?;
    let whole = Reduced { reducer: &reducer, input, output, count: what.count, element, wanted };
    match algorithm {
        Algorithm::Migrate => run.in_chunks(whole, run.migrate_chunk(element), Run::migrate)?,
        Algorithm::Pipeline => run.pipeline(whole)?,
        _ if bytes <= run.group.layout.swap_bytes => run.swap_reduce(whole)?,
        _ => run.in_chunks(whole, run.swap_piece(element) / element, Run::swap_reduce)?,
    }
    run.finish();
    Ok(())
}

/// A reduction, or a chunk of one: `count` elements of `input`, to be reduced into `output` on the ranks that want it.
#[derive(Clone, Copy)]
pub(crate) struct Reduced<'a> {
    pub(crate) reducer: &'a Reducer,
    pub(crate) input: Source<'a>,
    pub(crate) output: Option<Target<'a>>,
    pub(crate) count: usize,
    pub(crate) element: usize,
    pub(crate) wanted: Wanted,
}

impl<'a> Reduced<'a> {
    /// At most `count` elements from element `first`.
    pub(crate) fn part(self, first: usize, count: usize) -> Self {
        let count = count.min(self.count.saturating_sub(first));
        let (offset, bytes) = (first * self.element, count * self.element);
        let output = self.output.map(|output| output.part(offset, bytes));
        Reduced { input: self.input.part(offset, bytes), output, count, ..self }
    }

    /// Its length in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.count * self.element
    }
}

impl Run<'_> {
    /// Reduce chunks of `chunk` elements, one after the other. At least one, so that every call takes part in the order
    /// of things.
    fn in_chunks(
        &mut self,
        whole: Reduced<'_>,
        chunk: usize,
        reduce: fn(&mut Self, Reduced<'_>) -> BoxedResult<()>,
    ) -> BoxedResult<()> {
        let mut first = 0;
        loop {
            reduce(self, whole.part(first, chunk))?;
            first = first.saturating_add(chunk);
            if first >= whole.count {
                return Ok(());
            }
        }
    }

    /// One step: everybody hands its whole input to whoever wants the result, who reduces on its own.
    #[inline(always)]
    fn swap_reduce(&mut self, what: Reduced<'_>) -> BoxedResult<()> {
        let swap = self.open_swap(what.bytes())?;
        if let (Wanted::ByRoot(root), None) = (what.wanted, what.output) {
            self.look_back(1 << root)?;
        }
        for peer in self.others() {
            if what.wanted == Wanted::ByAll || what.wanted == Wanted::ByRoot(peer) {
                self.put(swap, peer, what.input)?;
            }
        }
        self.publish();
        let Some(output) = what.output else { return Ok(()) };
        self.wait_for_messages(swap, self.members.peers())?;
        let (mut sources, mut targets) = (Sources::new(), Targets::new());
        for rank in 0..self.members.world {
            sources.push(if rank == self.members.rank { what.input } else { self.inbox(swap, rank) });
        }
        targets.push(output);
        self.in_shares(what.bytes() * self.members.world, |share| {
            share.reduce(what.reducer, &targets, &sources, what.count, what.element);
        });
        Ok(())
    }
}
