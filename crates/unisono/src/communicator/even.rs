//! Collectives in which every rank has the same count, on slices.
//!
//! Lengths are checked against the slices before anything is published; a wrong one is an
//! [`InvalidArgument`](crate::Error::InvalidArgument) that changes nothing.

use unisono_kernels::{Element, ReduceOp};

use super::Communicator;
use crate::arguments;
use crate::call::{Call, Operation};
use crate::collectives::all_reduce::{self, Reduction};
use crate::collectives::blocks::Table;
use crate::collectives::gather::{self, Along};
use crate::collectives::{broadcast, point_to_point, reduce_scatter};
use crate::error::{Error, Result};
use crate::memory::{Source, Target};

impl Communicator {
    /// Replace `data` on every rank by the reduction of all ranks' `data`, element by element, in rank order.
    ///
    /// Every rank passes the same length (any, also 0) and gets the same bits.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) for a reduction the type does not have; else any terminal error.
    pub fn all_reduce<T: Element>(&self, data: &mut [T], op: ReduceOp) -> Result<()> {
        let what = Reduction { count: data.len(), dtype: T::DTYPE, op };
        let target = Target::of(data);
        Ok(all_reduce::all_reduce(self.group(), target.as_source(), target, what, self.timeout)?)
    }

    /// [`all_reduce`](Self::all_reduce) out of place: `input` stays as it is.
    ///
    /// # Errors
    /// As there, and if the lengths differ.
    pub fn all_reduce_into<T: Element>(&self, input: &[T], output: &mut [T], op: ReduceOp) -> Result<()> {
        arguments::length("all_reduce", "an output", input.len(), output.len())?;
        let what = Reduction { count: input.len(), dtype: T::DTYPE, op };
        Ok(all_reduce::all_reduce(self.group(), Source::of(input), Target::of(output), what, self.timeout)?)
    }

    /// Give the root the reduction of all ranks' `data`, in place; the other ranks' `data` stays as it is.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce), and if `root` does not exist.
    pub fn reduce<T: Element>(&self, data: &mut [T], op: ReduceOp, root: usize) -> Result<()> {
        let what = Reduction { count: data.len(), dtype: T::DTYPE, op };
        let target = Target::of(data);
        let output = (self.rank() == root).then_some(target);
        Ok(all_reduce::reduce(self.group(), target.as_source(), output, what, root, self.timeout)?)
    }

    /// [`reduce`](Self::reduce) out of place: the root passes an output of the input's length, the others none.
    ///
    /// # Errors
    /// As there, and if the root passes no output or one of another length.
    pub fn reduce_into<T: Element>(
        &self,
        input: &[T],
        output: Option<&mut [T]>,
        op: ReduceOp,
        root: usize,
    ) -> Result<()> {
        let output = self.at_root("reduce", "an output", output, root)?;
        if let Some(output) = &output {
            arguments::length("reduce", "an output", input.len(), output.len())?;
        }
        let what = Reduction { count: input.len(), dtype: T::DTYPE, op };
        Ok(all_reduce::reduce(
            self.group(),
            Source::of(input),
            output.map(Target::of),
            what,
            root,
            self.timeout,
        )?)
    }

    /// Give rank `r` block `r` of the reduction: `input` has `world_size() * output.len()` elements.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce), and if the lengths do not fit.
    pub fn reduce_scatter<T: Element>(&self, input: &[T], output: &mut [T], op: ReduceOp) -> Result<()> {
        let count = output.len();
        self.expect_blocks("reduce_scatter", "an input", count, input.len())?;
        let what = Reduction { count, dtype: T::DTYPE, op };
        self.reduce_scatter_blocks(Source::of(input), Target::of(output), what)
    }

    /// [`reduce_scatter`](Self::reduce_scatter) in place: the result is in this rank's block of `data`, the other blocks
    /// stay as they are.
    ///
    /// # Errors
    /// As there.
    pub fn reduce_scatter_in_place<T: Element>(&self, data: &mut [T], op: ReduceOp) -> Result<()> {
        let count = self.block_length("reduce_scatter", data.len())?;
        let what = Reduction { count, dtype: T::DTYPE, op };
        let target = Target::of(data);
        let bytes = count * size_of::<T>();
        self.reduce_scatter_blocks(target.as_source(), target.part(self.rank() * bytes, bytes), what)
    }

    pub(super) fn reduce_scatter_blocks(
        &self,
        input: Source<'_>,
        output: Target<'_>,
        what: Reduction,
    ) -> Result<()> {
        let call = Call::new(Operation::ReduceScatter).of(what.count, what.dtype).reducing(what.op);
        let blocks = Table::Even(output.len());
        Ok(reduce_scatter::reduce_scatter(self.group(), call, input, output, &blocks, what, self.timeout)?)
    }

    /// Give every rank all ranks' `input`, in rank order: `output` has `world_size() * input.len()` elements.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if the lengths do not fit; else any terminal error.
    pub fn all_gather<T: Element>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        self.expect_blocks("all_gather", "an output", input.len(), output.len())?;
        let call = Call::new(Operation::AllGather).of(input.len(), T::DTYPE);
        let input = Source::of(input);
        let blocks = Table::Even(input.len());
        Ok(gather::all_gather(self.group(), call, input, Target::of(output), &blocks, None, self.timeout)?)
    }

    /// [`all_gather`](Self::all_gather) in place: this rank's input is its block of `data`.
    ///
    /// # Errors
    /// As there.
    pub fn all_gather_in_place<T: Element>(&self, data: &mut [T]) -> Result<()> {
        let count = self.block_length("all_gather", data.len())?;
        let call = Call::new(Operation::AllGather).of(count, T::DTYPE);
        let target = Target::of(data);
        let bytes = count * size_of::<T>();
        let input = target.as_source().part(self.rank() * bytes, bytes);
        Ok(gather::all_gather(self.group(), call, input, target, &Table::Even(bytes), None, self.timeout)?)
    }

    /// Gather tensors along dimension `dim`: `input` has this `shape` (row-major), `output` the same with
    /// `shape[dim] * world_size()`. A negative `dim` counts from the end.
    ///
    /// ```
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// let mut output = [0; 6];
    /// comm.all_gather_dim(&[1, 2, 3, 4, 5, 6], &mut output, &[2, 3], -1)?;
    /// assert_eq!(output, [1, 2, 3, 4, 5, 6]);
    /// # Ok::<_, unisono::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if the dimension does not exist or the lengths do not fit.
    pub fn all_gather_dim<T: Element>(
        &self,
        input: &[T],
        output: &mut [T],
        shape: &[usize],
        dim: isize,
    ) -> Result<()> {
        let count =
            shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent)).unwrap_or(usize::MAX);
        arguments::length("all_gather", "an input", count, input.len())?;
        self.expect_blocks("all_gather", "an output", count, output.len())?;
        self.all_gather_along(Source::of(input), Target::of(output), shape, dim, T::DTYPE)
    }

    pub(super) fn all_gather_along(
        &self,
        input: Source<'_>,
        output: Target<'_>,
        shape: &[usize],
        dim: isize,
        dtype: unisono_kernels::DType,
    ) -> Result<()> {
        let rank = shape.len();
        let along = if dim < 0 { rank.checked_add_signed(dim) } else { usize::try_from(dim).ok() };
        let along = along.filter(|dim| *dim < rank).ok_or_else(|| {
            let problem = format!("dimension {dim} does not exist in the shape {shape:?}");
            Error::argument("all_gather", problem)
        })?;
        let element = dtype.size_bytes();
        // Without elements an extent may be anything, and there are no rows.
        let is_empty = input.len() == 0;
        let rows: usize = if is_empty { 1 } else { shape[..along].iter().product() };
        let row_bytes = if is_empty { 0 } else { input.len() / rows };
        let call = Call::new(Operation::AllGather)
            .of(input.len() / element, dtype)
            .shaped(shape.iter().copied().chain([along]));
        let along = (rows != 1).then_some(Along { row_bytes, rows });
        let blocks = Table::Even(input.len());
        Ok(gather::all_gather(self.group(), call, input, output, &blocks, along, self.timeout)?)
    }

    /// Replace `data` on every rank by the root's. Every rank passes the same length.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if `root` does not exist; else any terminal error.
    pub fn broadcast<T: Element>(&self, data: &mut [T], root: usize) -> Result<()> {
        let count = data.len();
        Ok(broadcast::broadcast(self.group(), Target::of(data), count, T::DTYPE, root, self.timeout)?)
    }

    /// Give the root all ranks' `input`, in rank order: the root passes an output of `world_size() * input.len()` elements,
    /// the others none.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if a length or `root` does not fit; else any terminal error.
    pub fn gather<T: Element>(&self, input: &[T], output: Option<&mut [T]>, root: usize) -> Result<()> {
        let output = self.at_root("gather", "an output", output, root)?;
        if let Some(output) = &output {
            self.expect_blocks("gather", "an output", input.len(), output.len())?;
        }
        self.gather_blocks(Source::of(input), output.map(Target::of), input.len(), T::DTYPE, root)
    }

    pub(super) fn gather_blocks(
        &self,
        input: Source<'_>,
        output: Option<Target<'_>>,
        count: usize,
        dtype: unisono_kernels::DType,
        root: usize,
    ) -> Result<()> {
        let call = Call::new(Operation::Gather).of(count, dtype).rooted(root);
        let blocks = Table::Even(input.len());
        Ok(gather::gather(
            self.group(),
            call,
            input,
            output.map(|output| (output, &blocks)),
            root,
            self.timeout,
        )?)
    }

    /// Give rank `r` block `r` of the root's input: the root passes an input of `world_size() * output.len()` elements, the
    /// others none.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if a length or `root` does not fit; else any terminal error.
    pub fn scatter<T: Element>(&self, input: Option<&[T]>, output: &mut [T], root: usize) -> Result<()> {
        let input = self.at_root("scatter", "an input", input, root)?;
        if let Some(input) = input {
            self.expect_blocks("scatter", "an input", output.len(), input.len())?;
        }
        let count = output.len();
        self.scatter_blocks(input.map(Source::of), Target::of(output), count, T::DTYPE, root)
    }

    pub(super) fn scatter_blocks(
        &self,
        input: Option<Source<'_>>,
        output: Target<'_>,
        count: usize,
        dtype: unisono_kernels::DType,
        root: usize,
    ) -> Result<()> {
        let call = Call::new(Operation::Scatter).of(count, dtype).rooted(root);
        let blocks = Table::Even(output.len());
        Ok(gather::scatter(
            self.group(),
            call,
            input.map(|input| (input, &blocks)),
            output,
            root,
            self.timeout,
        )?)
    }

    /// Send block `r` of `input` to rank `r`; block `r` of `output` comes from rank `r`. Both have the same length, a
    /// multiple of the world size.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if the lengths do not fit; else any terminal error.
    pub fn all_to_all<T: Element>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        arguments::length("all_to_all", "an output", input.len(), output.len())?;
        let count = self.block_length("all_to_all", input.len())?;
        self.all_to_all_blocks(Source::of(input), Target::of(output), count, T::DTYPE)
    }

    /// [`all_to_all`](Self::all_to_all) in place.
    ///
    /// # Errors
    /// As there.
    pub fn all_to_all_in_place<T: Element>(&self, data: &mut [T]) -> Result<()> {
        let count = self.block_length("all_to_all", data.len())?;
        let target = Target::of(data);
        self.all_to_all_blocks(target.as_source(), target, count, T::DTYPE)
    }

    pub(super) fn all_to_all_blocks(
        &self,
        input: Source<'_>,
        output: Target<'_>,
        count: usize,
        dtype: unisono_kernels::DType,
    ) -> Result<()> {
        let call = Call::new(Operation::AllToAll).of(count, dtype);
        let blocks = Table::Even(count * dtype.size_bytes());
        Ok(gather::all_to_all(self.group(), call, input, output, &blocks, &blocks, self.timeout)?)
    }

    /// Send `data` to rank `to`, which must receive the same type and length. Returns as soon as the data fits the pair's
    /// window ([`Parameters::window_bytes`](crate::Parameters)); a longer message waits for the receiver.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if `to` does not exist. A time-out before anything was taken leaves
    /// the communicator usable.
    pub fn send<T: Element>(&self, data: &[T], to: usize) -> Result<()> {
        Ok(point_to_point::send(self.group(), Source::of(data), data.len(), T::DTYPE, to, self.timeout)?)
    }

    /// Receive the next message from rank `from`, which must have this type and length.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if `from` does not exist, [`Mismatch`](Error::Mismatch) if the message is
    /// another. A time-out before anything came leaves the communicator usable.
    pub fn recv<T: Element>(&self, data: &mut [T], from: usize) -> Result<()> {
        let count = data.len();
        Ok(point_to_point::recv(self.group(), Target::of(data), count, T::DTYPE, from, self.timeout)?)
    }

    /// What only the root passes must be there at the root, and exists nowhere else.
    pub(super) fn at_root<B>(
        &self,
        operation: &'static str,
        what: &str,
        buffer: Option<B>,
        root: usize,
    ) -> Result<Option<B>> {
        arguments::rank(operation, "root", root, self.world_size())?;
        if self.rank() != root {
            return Ok(None);
        }
        match buffer {
            Some(buffer) => Ok(Some(buffer)),
            None => Err(Error::argument(operation, format!("rank {root} is the root and must pass {what}"))),
        }
    }

    fn expect_blocks(&self, operation: &'static str, what: &str, count: usize, found: usize) -> Result<()> {
        Ok(arguments::length(operation, what, count.saturating_mul(self.world_size()), found)?)
    }

    pub(super) fn block_length(&self, operation: &'static str, elements: usize) -> Result<usize> {
        let world = self.world_size();
        if elements.is_multiple_of(world) {
            return Ok(elements / world);
        }
        Err(Error::argument(operation, format!("{elements} elements cannot be divided among {world} ranks")))
    }
}
