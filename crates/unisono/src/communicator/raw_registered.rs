//! The operations on registered memory with the element type given at run time: for bindings to other languages.
//!
//! `offset` and `count` are in elements of the type, which need not be the one that the memory was allocated for.

#![allow(unsafe_code)]

use unisono_kernels::{DType, ReduceOp};

use super::Raw;
use crate::collectives::push;
use crate::error::Result;
use crate::registered::RegisteredMemory;

impl Raw<'_> {
    /// Allocate registered memory for `count` elements on every rank.
    ///
    /// # Errors
    /// As [`Communicator::alloc`](crate::Communicator::alloc).
    pub fn alloc(&self, count: usize, dtype: DType) -> Result<RegisteredMemory> {
        self.comm.alloc_memory(count, dtype)
    }

    /// All-reduce in place.
    ///
    /// # Safety
    /// No other thread of this process reads or writes these elements meanwhile.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce_registered`](crate::Communicator::all_reduce_registered), and if the elements reach
    /// outside.
    pub unsafe fn all_reduce_registered(
        &self,
        memory: &RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
        op: ReduceOp,
    ) -> Result<()> {
        let part = self.comm.part("all_reduce", memory, offset, count, dtype)?;
        Ok(push::all_reduce(self.comm.group(), part, op, self.comm.timeout)?)
    }

    /// Reduce to the root, in place.
    ///
    /// # Safety
    /// As [`all_reduce_registered`](Self::all_reduce_registered).
    ///
    /// # Errors
    /// As [`Communicator::reduce_registered`](crate::Communicator::reduce_registered), and if the elements reach outside.
    pub unsafe fn reduce_registered(
        &self,
        memory: &RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
        op: ReduceOp,
        root: usize,
    ) -> Result<()> {
        let part = self.comm.part("reduce", memory, offset, count, dtype)?;
        Ok(push::reduce_to_root(self.comm.group(), part, op, root, self.comm.timeout)?)
    }

    /// Reduce-scatter in place; `count` elements are one rank's block, `world_size * count` are used.
    ///
    /// # Safety
    /// As [`all_reduce_registered`](Self::all_reduce_registered).
    ///
    /// # Errors
    /// As [`Communicator::reduce_scatter_registered`](crate::Communicator::reduce_scatter_registered), and if the elements
    /// reach outside.
    pub unsafe fn reduce_scatter_registered(
        &self,
        memory: &RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
        op: ReduceOp,
    ) -> Result<()> {
        let total = count.saturating_mul(self.comm.world_size());
        let part = self.comm.part("reduce_scatter", memory, offset, total, dtype)?;
        Ok(push::reduce_scatter(self.comm.group(), part, op, self.comm.timeout)?)
    }

    /// All-gather in place; `count` elements are one rank's block, `world_size * count` are used.
    ///
    /// # Safety
    /// As [`all_reduce_registered`](Self::all_reduce_registered).
    ///
    /// # Errors
    /// As [`Communicator::all_gather_registered`](crate::Communicator::all_gather_registered), and if the elements reach
    /// outside.
    pub unsafe fn all_gather_registered(
        &self,
        memory: &RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
    ) -> Result<()> {
        let total = count.saturating_mul(self.comm.world_size());
        let part = self.comm.part("all_gather", memory, offset, total, dtype)?;
        Ok(push::all_gather(self.comm.group(), part, self.comm.timeout)?)
    }

    /// Broadcast from the root.
    ///
    /// # Safety
    /// As [`all_reduce_registered`](Self::all_reduce_registered).
    ///
    /// # Errors
    /// As [`Communicator::broadcast_registered`](crate::Communicator::broadcast_registered), and if the elements reach
    /// outside.
    pub unsafe fn broadcast_registered(
        &self,
        memory: &RegisteredMemory,
        offset: usize,
        count: usize,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let part = self.comm.part("broadcast", memory, offset, count, dtype)?;
        Ok(push::broadcast(self.comm.group(), part, root, self.comm.timeout)?)
    }
}
