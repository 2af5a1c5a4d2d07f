//! The operations on pointers, with the element type given at run time: for bindings to other languages.
//!
//! Lengths are counts of elements of the type. Pointers need no alignment. An input may be the same memory as the output
//! where a method says so (in place); any other overlap is an error. Where only the root has a buffer, the others
//! may pass null.

#![allow(unsafe_code)]

use unisono_kernels::{DType, ReduceOp};

use super::Communicator;
use crate::arguments::total_bytes;
use crate::call::{Call, Operation};
use crate::collectives::all_reduce::{self, Reduction};
use crate::collectives::blocks::Table;
use crate::collectives::{broadcast, gather, point_to_point};
use crate::error::{Error, Result};
use crate::memory::{Source, Target};

/// The operations of a [`Communicator`] on pointers; see [`Communicator::raw`].
///
/// Each of them may be carried out asynchronously by [`Communicator::start`]. Pointers are then valid until the operation is
/// over, also where its handle was dropped:
///
/// ```
/// # use unisono::{DType, ReduceOp};
/// # let comm = unisono::Communicator::in_process(1)?.remove(0);
/// struct Data(*mut u8); // from another language, with 100 floats
/// // SAFETY: whoever made it promised not to touch it until the operation is over.
/// unsafe impl Send for Data {}
/// # let mut floats = [1.0f32; 100];
/// # let data = Data(floats.as_mut_ptr().cast());
/// let pending = comm.start(data, |comm, Data(data)| {
///     // SAFETY: it is valid for 100 floats until the operation is over.
///     unsafe { comm.raw().all_reduce(*data, *data, 100, DType::F32, ReduceOp::Sum) }
/// });
/// pending.wait()?;
/// # Ok::<_, unisono::Error>(())
/// ```
///
/// # Safety
/// For every method: each pointer is valid for the stated number of elements (reads for inputs, reads and
/// writes for outputs) until the call returns, and no other thread of this process writes that memory meanwhile.
/// Null is allowed where the number is 0, and for what only the root has.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'c> {
    pub(super) comm: &'c Communicator,
}

/// The memory at `start`, or an error if it is null but should hold something.
unsafe fn source<'a>(operation: &'static str, start: *const u8, bytes: usize) -> Result<Source<'a>> {
    if start.is_null() && bytes > 0 {
        return Err(Error::argument(operation, format!("the input is null, but {bytes} bytes are needed")));
    }
    // SAFETY: the caller of the method vouches for `bytes` bytes.
    Ok(unsafe { Source::from_raw(start, bytes) })
}

/// As [`source`], for memory that is written.
unsafe fn target<'a>(operation: &'static str, start: *mut u8, bytes: usize) -> Result<Target<'a>> {
    if start.is_null() && bytes > 0 {
        return Err(Error::argument(operation, format!("the output is null, but {bytes} bytes are needed")));
    }
    // SAFETY: the caller of the method vouches for `bytes` bytes.
    Ok(unsafe { Target::from_raw(start, bytes) })
}

/// The proof that every method below gives for the two functions above.
macro_rules! vouched {
    ($call:expr) => {
        // SAFETY: the contract of `Raw`: the pointer is valid for that many elements of the type.
        unsafe { $call }?
    };
}

impl<'c> Raw<'c> {
    pub(super) fn new(comm: &'c Communicator) -> Self {
        Raw { comm }
    }

    /// `count` elements each; in place if `input == output`.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub unsafe fn all_reduce(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
        op: ReduceOp,
    ) -> Result<()> {
        let bytes = total_bytes("all_reduce", count, dtype.size_bytes(), 1)?;
        let input = vouched!(source("all_reduce", input, bytes));
        let output = vouched!(target("all_reduce", output, bytes));
        let what = Reduction { count, dtype, op };
        Ok(all_reduce::all_reduce(self.comm.group(), input, output, what, self.comm.timeout)?)
    }

    /// `count` elements each; the output counts at the root only, in place if `input == output`.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::reduce`].
    pub unsafe fn reduce(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
        op: ReduceOp,
        root: usize,
    ) -> Result<()> {
        let bytes = total_bytes("reduce", count, dtype.size_bytes(), 1)?;
        let input = vouched!(source("reduce", input, bytes));
        let output =
            if self.comm.rank() == root { Some(vouched!(target("reduce", output, bytes))) } else { None };
        let what = Reduction { count, dtype, op };
        Ok(all_reduce::reduce(self.comm.group(), input, output, what, root, self.comm.timeout)?)
    }

    /// `world_size * count` elements in, `count` out; in place if the output is this rank's block of the input.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::reduce_scatter`].
    pub unsafe fn reduce_scatter(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
        op: ReduceOp,
    ) -> Result<()> {
        let total = total_bytes("reduce_scatter", count, dtype.size_bytes(), self.comm.world_size())?;
        let input = vouched!(source("reduce_scatter", input, total));
        let output = vouched!(target("reduce_scatter", output, count * dtype.size_bytes()));
        self.comm.reduce_scatter_blocks(input, output, Reduction { count, dtype, op })
    }

    /// `count` elements in, `world_size * count` out; in place if the input is this rank's block of the output.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_gather`].
    pub unsafe fn all_gather(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
    ) -> Result<()> {
        let total = total_bytes("all_gather", count, dtype.size_bytes(), self.comm.world_size())?;
        let bytes = count * dtype.size_bytes();
        let input = vouched!(source("all_gather", input, bytes));
        let output = vouched!(target("all_gather", output, total));
        let call = Call::new(Operation::AllGather).of(count, dtype);
        Ok(gather::all_gather(
            self.comm.group(),
            call,
            input,
            output,
            &Table::Even(bytes),
            None,
            self.comm.timeout,
        )?)
    }

    /// The elements of `shape` in, the same with `shape[dim] * world_size` out; out of place.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_gather_dim`].
    pub unsafe fn all_gather_dim(
        &self,
        input: *const u8,
        output: *mut u8,
        shape: &[usize],
        dim: isize,
        dtype: DType,
    ) -> Result<()> {
        let count =
            shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent)).unwrap_or(usize::MAX);
        let total = total_bytes("all_gather", count, dtype.size_bytes(), self.comm.world_size())?;
        let input = vouched!(source("all_gather", input, count * dtype.size_bytes()));
        let output = vouched!(target("all_gather", output, total));
        self.comm.all_gather_along(input, output, shape, dim, dtype)
    }

    /// `count` elements on every rank.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::broadcast`].
    pub unsafe fn broadcast(&self, data: *mut u8, count: usize, dtype: DType, root: usize) -> Result<()> {
        let bytes = total_bytes("broadcast", count, dtype.size_bytes(), 1)?;
        let data = vouched!(target("broadcast", data, bytes));
        Ok(broadcast::broadcast(self.comm.group(), data, count, dtype, root, self.comm.timeout)?)
    }

    /// `count` elements in, `world_size * count` out at the root; in place if the root's input is its block of the output.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub unsafe fn gather(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let total = total_bytes("gather", count, dtype.size_bytes(), self.comm.world_size())?;
        let input = vouched!(source("gather", input, count * dtype.size_bytes()));
        let output =
            if self.comm.rank() == root { Some(vouched!(target("gather", output, total))) } else { None };
        self.comm.at_root("gather", "an output", output, root)?;
        self.comm.gather_blocks(input, output, count, dtype, root)
    }

    /// `world_size * count` elements in at the root, `count` out; in place if the root's output is its block of the input.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::scatter`].
    pub unsafe fn scatter(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let total = total_bytes("scatter", count, dtype.size_bytes(), self.comm.world_size())?;
        let input =
            if self.comm.rank() == root { Some(vouched!(source("scatter", input, total))) } else { None };
        let output = vouched!(target("scatter", output, count * dtype.size_bytes()));
        self.comm.at_root("scatter", "an input", input, root)?;
        self.comm.scatter_blocks(input, output, count, dtype, root)
    }

    /// `world_size * count` elements in and out; in place if `input == output`.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_to_all`].
    pub unsafe fn all_to_all(
        &self,
        input: *const u8,
        output: *mut u8,
        count: usize,
        dtype: DType,
    ) -> Result<()> {
        let total = total_bytes("all_to_all", count, dtype.size_bytes(), self.comm.world_size())?;
        let input = vouched!(source("all_to_all", input, total));
        let output = vouched!(target("all_to_all", output, total));
        self.comm.all_to_all_blocks(input, output, count, dtype)
    }

    /// `counts[rank]` elements in, their sum out; in place if the input is this rank's block of the output.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_gather_v`].
    pub unsafe fn all_gather_v(
        &self,
        input: *const u8,
        output: *mut u8,
        counts: &[usize],
        dtype: DType,
    ) -> Result<()> {
        let total = self.comm.check_counts("all_gather_v", counts, dtype)?;
        let input = vouched!(source("all_gather_v", input, counts[self.comm.rank()] * dtype.size_bytes()));
        let output = vouched!(target("all_gather_v", output, total * dtype.size_bytes()));
        self.comm.all_gather_v_blocks(input, output, counts, dtype)
    }

    /// The sum of `counts` elements in, `counts[rank]` out; in place if the output is this rank's block of the input.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::reduce_scatter_v`].
    pub unsafe fn reduce_scatter_v(
        &self,
        input: *const u8,
        output: *mut u8,
        counts: &[usize],
        dtype: DType,
        op: ReduceOp,
    ) -> Result<()> {
        let total = self.comm.check_counts("reduce_scatter_v", counts, dtype)?;
        let input = vouched!(source("reduce_scatter_v", input, total * dtype.size_bytes()));
        let bytes = counts[self.comm.rank()] * dtype.size_bytes();
        let output = vouched!(target("reduce_scatter_v", output, bytes));
        self.comm.reduce_scatter_v_blocks(input, output, counts, Reduction { count: total, dtype, op })
    }

    /// The sum of `send_counts` elements in, the sum of `recv_counts` out; out of place.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::all_to_all_v`].
    pub unsafe fn all_to_all_v(
        &self,
        input: *const u8,
        send_counts: &[usize],
        output: *mut u8,
        recv_counts: &[usize],
        dtype: DType,
    ) -> Result<()> {
        let sent = self.comm.check_counts("all_to_all_v", send_counts, dtype)?;
        let received = self.comm.check_counts("all_to_all_v", recv_counts, dtype)?;
        let input = vouched!(source("all_to_all_v", input, sent * dtype.size_bytes()));
        let output = vouched!(target("all_to_all_v", output, received * dtype.size_bytes()));
        self.comm.all_to_all_v_blocks(input, send_counts, output, recv_counts, dtype)
    }

    /// `count` elements in, the sum of `counts` out at the root, where alone `counts` matters.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::gather_v`].
    pub unsafe fn gather_v(
        &self,
        input: *const u8,
        count: usize,
        output: *mut u8,
        counts: &[usize],
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let bytes = total_bytes("gather_v", count, dtype.size_bytes(), 1)?;
        let input = vouched!(source("gather_v", input, bytes));
        let at_root = self.comm.at_root("gather_v", "an output and the counts", Some(()), root)?;
        let output = match at_root {
            None => None,
            Some(()) => {
                let total = self.comm.check_counts("gather_v", counts, dtype)?;
                crate::arguments::length("gather_v", "an input", counts[root], count)?;
                Some((vouched!(target("gather_v", output, total * dtype.size_bytes())), counts))
            }
        };
        self.comm.gather_v_blocks(input, output, dtype, root)
    }

    /// The sum of `counts` elements in at the root, where alone `counts` matters; `count` out.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::scatter_v`].
    pub unsafe fn scatter_v(
        &self,
        input: *const u8,
        counts: &[usize],
        output: *mut u8,
        count: usize,
        dtype: DType,
        root: usize,
    ) -> Result<()> {
        let bytes = total_bytes("scatter_v", count, dtype.size_bytes(), 1)?;
        let output = vouched!(target("scatter_v", output, bytes));
        let at_root = self.comm.at_root("scatter_v", "an input and the counts", Some(()), root)?;
        let input = match at_root {
            None => None,
            Some(()) => {
                let total = self.comm.check_counts("scatter_v", counts, dtype)?;
                crate::arguments::length("scatter_v", "an output", counts[root], count)?;
                Some((vouched!(source("scatter_v", input, total * dtype.size_bytes())), counts))
            }
        };
        self.comm.scatter_v_blocks(input, output, dtype, root)
    }

    /// `count` elements to rank `to`.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::send`].
    pub unsafe fn send(&self, data: *const u8, count: usize, dtype: DType, to: usize) -> Result<()> {
        let bytes = total_bytes("send", count, dtype.size_bytes(), 1)?;
        let data = vouched!(source("send", data, bytes));
        Ok(point_to_point::send(self.comm.group(), data, count, dtype, to, self.comm.timeout)?)
    }

    /// `count` elements from rank `from`.
    ///
    /// # Safety
    /// See [`Raw`].
    ///
    /// # Errors
    /// As [`Communicator::recv`].
    pub unsafe fn recv(&self, data: *mut u8, count: usize, dtype: DType, from: usize) -> Result<()> {
        let bytes = total_bytes("recv", count, dtype.size_bytes(), 1)?;
        let data = vouched!(target("recv", data, bytes));
        Ok(point_to_point::recv(self.comm.group(), data, count, dtype, from, self.comm.timeout)?)
    }
}
