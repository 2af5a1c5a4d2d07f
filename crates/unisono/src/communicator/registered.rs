//! Registered memory: allocating it, and the operations on it.
//!
//! Each takes a whole [`Registered`] buffer (`&mut buffer`) or a part of it (`buffer.slice(range)?`), the same on
//! all ranks: offset and length are compared like everything else, and a difference is a
//! [`Mismatch`](crate::Error::Mismatch) that names both.

use unisono_kernels::{DType, Element, ReduceOp};

use super::Communicator;
use crate::arguments;
use crate::collectives::push::{self, Part};
use crate::error::{Error, Result};
use crate::group::allocation::Allocation;
use crate::registered::{Registered, RegisteredMemory, RegisteredSlice};

impl Communicator {
    /// Allocate registered memory for `count` elements on every rank, zeroed. A collective call: all ranks ask for the same
    /// type and count.
    ///
    /// # Errors
    /// [`OutOfMemory`](Error::OutOfMemory) if the memory of all ranks is more than may still be had, with both numbers; on the
    /// other ranks this may be a [`Rendezvous`](Error::Rendezvous) that says so. All ranks fail together, and the communicator
    /// goes on. A rank that has no descriptor left to meet the others says so, and the communicator is stopped. Else any
    /// terminal error.
    pub fn alloc<T: Element>(&self, count: usize) -> Result<Registered<T>> {
        Ok(Registered::new(self.alloc_memory(count, T::DTYPE)?))
    }

    pub(super) fn alloc_memory(&self, count: usize, dtype: DType) -> Result<RegisteredMemory> {
        let allocation = Allocation::new(self.group(), count, dtype, self.timeout)?;
        Ok(RegisteredMemory::new(allocation, count, dtype))
    }

    /// [`all_reduce`](Self::all_reduce) on registered memory, in place and without staging.
    ///
    /// # Errors
    /// As there, and [`InvalidArgument`](Error::InvalidArgument) for memory of another communicator.
    pub fn all_reduce_registered<'a, T: Element>(
        &self,
        data: impl Into<RegisteredSlice<'a, T>>,
        op: ReduceOp,
    ) -> Result<()> {
        let data = data.into();
        let part = self.part("all_reduce", data.memory(), data.offset(), data.len(), T::DTYPE)?;
        Ok(push::all_reduce(self.group(), part, op, self.timeout)?)
    }

    /// [`reduce`](Self::reduce) on registered memory: the root's `data` becomes the reduction, the others' stays.
    ///
    /// # Errors
    /// As [`all_reduce_registered`](Self::all_reduce_registered), and if `root` does not exist.
    pub fn reduce_registered<'a, T: Element>(
        &self,
        data: impl Into<RegisteredSlice<'a, T>>,
        op: ReduceOp,
        root: usize,
    ) -> Result<()> {
        let data = data.into();
        let part = self.part("reduce", data.memory(), data.offset(), data.len(), T::DTYPE)?;
        Ok(push::reduce_to_root(self.group(), part, op, root, self.timeout)?)
    }

    /// [`reduce_scatter`](Self::reduce_scatter_in_place) on registered memory: this rank's block of `data` becomes that of the
    /// reduction, the other blocks stay.
    ///
    /// # Errors
    /// As [`all_reduce_registered`](Self::all_reduce_registered), and if the length is no multiple of the world size.
    pub fn reduce_scatter_registered<'a, T: Element>(
        &self,
        data: impl Into<RegisteredSlice<'a, T>>,
        op: ReduceOp,
    ) -> Result<()> {
        let data = data.into();
        self.block_length("reduce_scatter", data.len())?;
        let part = self.part("reduce_scatter", data.memory(), data.offset(), data.len(), T::DTYPE)?;
        Ok(push::reduce_scatter(self.group(), part, op, self.timeout)?)
    }

    /// [`all_gather`](Self::all_gather_in_place) on registered memory: this rank's input is its block of `data`.
    ///
    /// # Errors
    /// As [`reduce_scatter_registered`](Self::reduce_scatter_registered).
    pub fn all_gather_registered<'a, T: Element>(
        &self,
        data: impl Into<RegisteredSlice<'a, T>>,
    ) -> Result<()> {
        let data = data.into();
        self.block_length("all_gather", data.len())?;
        let part = self.part("all_gather", data.memory(), data.offset(), data.len(), T::DTYPE)?;
        Ok(push::all_gather(self.group(), part, self.timeout)?)
    }

    /// [`broadcast`](Self::broadcast) on registered memory. If it is large, all ranks take part in
    /// spreading the data, and the root waits for them.
    ///
    /// # Errors
    /// As [`all_reduce_registered`](Self::all_reduce_registered), and if `root` does not exist.
    pub fn broadcast_registered<'a, T: Element>(
        &self,
        data: impl Into<RegisteredSlice<'a, T>>,
        root: usize,
    ) -> Result<()> {
        let data = data.into();
        let part = self.part("broadcast", data.memory(), data.offset(), data.len(), T::DTYPE)?;
        Ok(push::broadcast(self.group(), part, root, self.timeout)?)
    }

    /// `count` elements of a type from element `offset` on, as an operation takes them.
    pub(super) fn part<'a>(
        &self,
        operation: &'static str,
        memory: &'a RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
    ) -> Result<Part<'a>> {
        memory.allocation.check_group(operation, &self.group.members)?;
        let end = offset.saturating_add(count);
        if arguments::total_bytes(operation, end, dtype.size_bytes(), 1)? > memory.size_bytes() {
            let problem = format!(
                "{count} x {dtype} from element {offset} reach outside the {} bytes that were allocated",
                memory.size_bytes()
            );
            return Err(Error::argument(operation, problem));
        }
        Ok(Part { allocation: &memory.allocation, offset, count, dtype })
    }
}
