//! Collectives with a count per rank, on slices. Blocks lie end to end, in rank order.

use unisono_kernels::{DType, Element, ReduceOp};

use super::Communicator;
use crate::arguments;
use crate::call::{Call, Operation};
use crate::collectives::all_reduce::Reduction;
use crate::collectives::blocks::Table;
use crate::collectives::{gather, reduce_scatter};
use crate::error::Result;
use crate::memory::{Source, Target};

impl Communicator {
    /// Give every rank all ranks' inputs, in rank order. `counts[r]` is the length of rank `r`'s input; every rank passes
    /// the same `counts`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the lengths do not fit; else any terminal error.
    pub fn all_gather_v<T: Element>(&self, input: &[T], output: &mut [T], counts: &[usize]) -> Result<()> {
        let total = self.check_counts("all_gather_v", counts, T::DTYPE)?;
        arguments::length("all_gather_v", "an input", counts[self.rank()], input.len())?;
        arguments::length("all_gather_v", "an output", total, output.len())?;
        self.all_gather_v_blocks(Source::of(input), Target::of(output), counts, T::DTYPE)
    }

    pub(super) fn all_gather_v_blocks(
        &self,
        input: Source<'_>,
        output: Target<'_>,
        counts: &[usize],
        dtype: DType,
    ) -> Result<()> {
        let call = Call::new(Operation::AllGatherV)
            .of(output.len() / dtype.size_bytes(), dtype)
            .shaped(counts.iter().copied());
        let blocks = Table::Uneven(counts, dtype.size_bytes());
        Ok(gather::all_gather(self.group(), call, input, output, &blocks, None, self.timeout)?)
    }

    /// Give rank `r` block `r` of the reduction. `counts[r]` is the length of block `r`; every rank passes the same
    /// `counts`, an input of their sum and an output of its own.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the lengths do not fit; else any terminal error.
    pub fn reduce_scatter_v<T: Element>(
        &self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<()> {
        let total = self.check_counts("reduce_scatter_v", counts, T::DTYPE)?;
        arguments::length("reduce_scatter_v", "an input", total, input.len())?;
        arguments::length("reduce_scatter_v", "an output", counts[self.rank()], output.len())?;
        let what = Reduction { count: total, dtype: T::DTYPE, op };
        self.reduce_scatter_v_blocks(Source::of(input), Target::of(output), counts, what)
    }

    pub(super) fn reduce_scatter_v_blocks(
        &self,
        input: Source<'_>,
        output: Target<'_>,
        counts: &[usize],
        what: Reduction,
    ) -> Result<()> {
        let call = Call::new(Operation::ReduceScatterV)
            .of(what.count, what.dtype)
            .reducing(what.op)
            .shaped(counts.iter().copied());
        let blocks = Table::Uneven(counts, what.dtype.size_bytes());
        Ok(reduce_scatter::reduce_scatter(self.group(), call, input, output, &blocks, what, self.timeout)?)
    }

    /// Send `send_counts[r]` elements to rank `r` and receive `recv_counts[r]` from it. What one rank sends another must be
    /// what that one expects; the counts of different pairs are independent.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the lengths do not fit the slices,
    /// [`Mismatch`](crate::Error::Mismatch) if two ranks disagree.
    pub fn all_to_all_v<T: Element>(
        &self,
        input: &[T],
        send_counts: &[usize],
        output: &mut [T],
        recv_counts: &[usize],
    ) -> Result<()> {
        let sent = self.check_counts("all_to_all_v", send_counts, T::DTYPE)?;
        let received = self.check_counts("all_to_all_v", recv_counts, T::DTYPE)?;
        arguments::length("all_to_all_v", "an input", sent, input.len())?;
        arguments::length("all_to_all_v", "an output", received, output.len())?;
        self.all_to_all_v_blocks(Source::of(input), send_counts, Target::of(output), recv_counts, T::DTYPE)
    }

    pub(super) fn all_to_all_v_blocks(
        &self,
        input: Source<'_>,
        send_counts: &[usize],
        output: Target<'_>,
        recv_counts: &[usize],
        dtype: DType,
    ) -> Result<()> {
        let rank = self.rank();
        arguments::length("all_to_all_v", "the own block", send_counts[rank], recv_counts[rank])?;
        let element = dtype.size_bytes();
        let call = Call::new(Operation::AllToAllV).of(0, dtype);
        let (send, receive) = (Table::Uneven(send_counts, element), Table::Uneven(recv_counts, element));
        Ok(gather::all_to_all(self.group(), call, input, output, &send, &receive, self.timeout)?)
    }

    /// Give the root all ranks' inputs, in rank order. The root passes the output and the length of each rank's input, the
    /// others neither.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the lengths do not fit the slices,
    /// [`Mismatch`](crate::Error::Mismatch) if a rank sends another length than the root expects.
    pub fn gather_v<T: Element>(
        &self,
        input: &[T],
        output: Option<(&mut [T], &[usize])>,
        root: usize,
    ) -> Result<()> {
        let output = self.at_root("gather_v", "an output and the counts", output, root)?;
        if let Some((output, counts)) = &output {
            let total = self.check_counts("gather_v", counts, T::DTYPE)?;
            arguments::length("gather_v", "an output", total, output.len())?;
            arguments::length("gather_v", "an input", counts[root], input.len())?;
        }
        let output = output.map(|(output, counts)| (Target::of(output), counts));
        self.gather_v_blocks(Source::of(input), output, T::DTYPE, root)
    }

    pub(super) fn gather_v_blocks(
        &self,
        input: Source<'_>,
        output: Option<(Target<'_>, &[usize])>,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let call = Call::new(Operation::GatherV).of(0, dtype).rooted(root);
        let blocks = output.map(|(output, counts)| (output, Table::Uneven(counts, dtype.size_bytes())));
        let output = blocks.as_ref().map(|(output, blocks)| (*output, blocks));
        Ok(gather::gather(self.group(), call, input, output, root, self.timeout)?)
    }

    /// Give rank `r` block `r` of the root's input. The root passes the input and the length of each block, the others
    /// neither.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the lengths do not fit the slices,
    /// [`Mismatch`](crate::Error::Mismatch) if a rank expects another length than the root sends.
    pub fn scatter_v<T: Element>(
        &self,
        input: Option<(&[T], &[usize])>,
        output: &mut [T],
        root: usize,
    ) -> Result<()> {
        let input = self.at_root("scatter_v", "an input and the counts", input, root)?;
        if let Some((input, counts)) = input {
            let total = self.check_counts("scatter_v", counts, T::DTYPE)?;
            arguments::length("scatter_v", "an input", total, input.len())?;
            arguments::length("scatter_v", "an output", counts[root], output.len())?;
        }
        let input = input.map(|(input, counts)| (Source::of(input), counts));
        self.scatter_v_blocks(input, Target::of(output), T::DTYPE, root)
    }

    pub(super) fn scatter_v_blocks(
        &self,
        input: Option<(Source<'_>, &[usize])>,
        output: Target<'_>,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let call = Call::new(Operation::ScatterV).of(0, dtype).rooted(root);
        let blocks = input.map(|(input, counts)| (input, Table::Uneven(counts, dtype.size_bytes())));
        let input = blocks.as_ref().map(|(input, blocks)| (*input, blocks));
        Ok(gather::scatter(self.group(), call, input, output, root, self.timeout)?)
    }

    /// One count per rank, whose sum fits the address space: returns the sum.
    pub(super) fn check_counts(
        &self,
        operation: &'static str,
        counts: &[usize],
        dtype: DType,
    ) -> Result<usize> {
        arguments::length(operation, "a list of counts", self.world_size(), counts.len())?;
        let total =
            counts.iter().try_fold(0usize, |total, count| total.checked_add(*count)).unwrap_or(usize::MAX);
        arguments::total_bytes(operation, total, dtype.size_bytes(), 1)?;
        Ok(total)
    }
}
