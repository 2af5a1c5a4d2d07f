//! The functions as they are on NVIDIA's platform: peers' memory comes as addresses that the caller has opened.

use super::{Surface, Tensor, check_count, handle_from, offset_from};
use crate::all_reduce::Staging;
use crate::driver::any::Device;
use crate::error::Error;

/// Bytes of handles and offsets of captured inputs: what one rank tells the others.
pub type GraphMeta = (Vec<i64>, Vec<i64>);

impl Surface {
    /// `init_custom_ar(int[] ipc_tensors, Tensor rank_data, int rank, bool full_nvlink) -> int`: begins an all-reduce.
    ///
    /// `ipc_tensors` are the addresses, as seen here, of every rank's memory for signals and scratch; `rank_data` is device
    /// memory for the table of registered buffers, 64 bytes for each.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::new`](crate::AllReduce::new).
    pub fn init_custom_ar(
        &self,
        device: Device,
        ipc_tensors: &[i64],
        rank_data: &Tensor,
        rank: i64,
        full_nvlink: bool,
    ) -> Result<i64, Error> {
        let all_reduce = self.begin(device, &addresses(ipc_tensors), rank_data, rank, full_nvlink)?;
        Ok(self.keep(all_reduce))
    }

    /// `all_reduce(int fa, Tensor inp, Tensor! out, int reg_buffer, int reg_buffer_sz_bytes) -> ()`: puts one on the stream.
    /// With a `reg_buffer` the input is copied there first; with 0 it must be registered itself, or a graph be captured.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Tensor`], and as [`AllReduce::all_reduce`](crate::AllReduce::all_reduce).
    pub fn all_reduce(
        &self,
        fa: i64,
        inp: &Tensor,
        out: &Tensor,
        reg_buffer: i64,
        reg_buffer_sz_bytes: i64,
        stream: u64,
    ) -> Result<(), Error> {
        let staging = match reg_buffer {
            0 => None,
            address => Some(Staging { address: address as u64, bytes: offset_from(reg_buffer_sz_bytes)? }),
        };
        self.reduce(fa, inp, out, staging, stream)
    }

    /// `register_buffer(int fa, int[] fake_ipc_ptrs) -> ()`: makes a buffer known, by its address on each rank as seen here.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], and as [`AllReduce::register_buffer`](crate::AllReduce::register_buffer).
    pub fn register_buffer(&self, fa: i64, fake_ipc_ptrs: &[i64]) -> Result<(), Error> {
        self.with(fa, |all_reduce| all_reduce.register_buffer(&addresses(fake_ipc_ptrs)))
    }

    /// `get_graph_buffer_ipc_meta(int fa) -> (int[], int[])`: of each captured input the 64 bytes of its allocation's handle, one
    /// integer per byte, and where in it the input lies.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Driver`].
    pub fn get_graph_buffer_ipc_meta(&self, fa: i64) -> Result<GraphMeta, Error> {
        let buffers = self.with(fa, |all_reduce| all_reduce.graph_buffers())?;
        let bytes = buffers.iter().flat_map(|(handle, _)| handle.iter().copied().map(i64::from)).collect();
        Ok((bytes, buffers.iter().map(|(_, offset)| *offset as i64).collect()))
    }

    /// `register_graph_buffers(int fa, int[][] handles, int[][] offsets) -> ()`: of each rank, what its
    /// [`Surface::get_graph_buffer_ipc_meta`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], and as [`AllReduce::register_graph_buffers`](crate::AllReduce::register_graph_buffers).
    pub fn register_graph_buffers(
        &self,
        fa: i64,
        handles: &[Vec<i64>],
        offsets: &[Vec<i64>],
    ) -> Result<(), Error> {
        check_count("lists of offsets", handles.len(), offsets.len())?;
        let mut of_ranks = Vec::with_capacity(handles.len());
        for (handles, offsets) in handles.iter().zip(offsets) {
            let bytes: Result<Vec<u8>, _> = handles.iter().map(|byte| u8::try_from(*byte)).collect();
            let bytes =
                bytes.map_err(|_| Error::Tensor { problem: "a handle's bytes are from 0 to 255".into() })?;
            of_ranks.push(buffers(&bytes, offsets)?);
        }
        self.with(fa, |all_reduce| all_reduce.register_graph_buffers(&of_ranks))
    }
}

/// Handles of 64 bytes, one after the other, and an offset for each.
pub(super) fn buffers(handles: &[u8], offsets: &[i64]) -> Result<Vec<(crate::driver::Handle, usize)>, Error> {
    check_count("bytes of handles", 64 * offsets.len(), handles.len())?;
    let pairs = handles.chunks(64).zip(offsets);
    pairs.map(|(handle, offset)| Ok((handle_from(handle)?, offset_from(*offset)?))).collect()
}

/// Torch has addresses as signed integers.
fn addresses(integers: &[i64]) -> Vec<u64> {
    integers.iter().map(|address| address.cast_unsigned()).collect()
}
