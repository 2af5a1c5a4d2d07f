//! The functions as they are on AMD's platform: peers' memory comes as handles with offsets, and is opened here.

use super::cuda::buffers;
use super::{Surface, Tensor, check_count, handle_from, offset_from};
use crate::all_reduce::Staging;
use crate::driver::any::Device;
use crate::driver::{Driver, Handle};
use crate::error::Error;

/// What callers on AMD's platform reserve for a rank's signals: the original has more of them there. The kernels need
/// [`META_BYTES`](crate::META_BYTES), and begin their scratch behind those.
const META_BYTES_ROCM: usize = 4352;
const _: () = assert!(META_BYTES_ROCM >= crate::layout::META_BYTES && META_BYTES_ROCM.is_multiple_of(128));

impl Surface {
    /// `meta_size() -> int`: bytes that callers reserve before those for the largest message.
    pub fn meta_size_rocm(&self) -> i64 {
        META_BYTES_ROCM as i64
    }

    /// `init_custom_ar(Tensor meta, Tensor rank_data, str[] handles, int[] offsets, int rank, bool full_nvlink) -> int`: begins an
    /// all-reduce.
    ///
    /// `meta` is this rank's memory for signals and scratch; handles and offsets say where every rank's is.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::new`](crate::AllReduce::new), and [`Error::Driver`] for a handle that cannot be opened.
    #[allow(clippy::too_many_arguments, reason = "the operator's")]
    pub fn init_custom_ar_rocm(
        &self,
        device: Device,
        meta: &Tensor,
        rank_data: &Tensor,
        handles: &[Vec<u8>],
        offsets: &[i64],
        rank: i64,
        full_nvlink: bool,
    ) -> Result<i64, Error> {
        check_count("offsets", handles.len(), offsets.len())?;
        meta.lend(&device)?;
        let mut opened: Vec<(Handle, u64)> = Vec::new();
        let begun = open_all(&device, meta, handles, offsets, rank, &mut opened)
            .and_then(|metas| self.begin(device.clone(), &metas, rank_data, rank, full_nvlink));
        match begun {
            Ok(mut all_reduce) => {
                opened.into_iter().for_each(|(handle, base)| all_reduce.take_over(handle, base));
                Ok(self.keep(all_reduce))
            }
            Err(error) => {
                // What went wrong first is what is told.
                opened.into_iter().for_each(|(_, base)| drop(device.close(base)));
                Err(error)
            }
        }
    }

    /// `all_reduce_reg(int fa, Tensor inp, Tensor! out) -> ()`: of an input that is registered, or while a graph is captured.
    ///
    /// # Errors
    ///
    /// As [`Surface::all_reduce`].
    pub fn all_reduce_reg(&self, fa: i64, inp: &Tensor, out: &Tensor, stream: u64) -> Result<(), Error> {
        self.reduce(fa, inp, out, None, stream)
    }

    /// `all_reduce_unreg(int fa, Tensor inp, Tensor reg_buffer, Tensor! out) -> ()`: of any input, by way of a registered buffer.
    ///
    /// # Errors
    ///
    /// As [`Surface::all_reduce`].
    pub fn all_reduce_unreg(
        &self,
        fa: i64,
        inp: &Tensor,
        reg_buffer: &Tensor,
        out: &Tensor,
        stream: u64,
    ) -> Result<(), Error> {
        let staging = Staging { address: reg_buffer.address, bytes: reg_buffer.bytes() };
        self.reduce(fa, inp, out, Some(staging), stream)
    }

    /// `deterministic_all_reduce_reg(int fa, Tensor inp, Tensor! out) -> ()`: the bits do not depend on the length. They never
    /// do here: every all-reduce adds in the order of the ranks.
    ///
    /// # Errors
    ///
    /// As [`Surface::all_reduce`].
    pub fn deterministic_all_reduce_reg(
        &self,
        fa: i64,
        inp: &Tensor,
        out: &Tensor,
        stream: u64,
    ) -> Result<(), Error> {
        self.all_reduce_reg(fa, inp, out, stream)
    }

    /// `deterministic_all_reduce_unreg(int fa, Tensor inp, Tensor reg_buffer, Tensor! out) -> ()`.
    ///
    /// # Errors
    ///
    /// As [`Surface::all_reduce`].
    pub fn deterministic_all_reduce_unreg(
        &self,
        fa: i64,
        inp: &Tensor,
        reg_buffer: &Tensor,
        out: &Tensor,
        stream: u64,
    ) -> Result<(), Error> {
        self.all_reduce_unreg(fa, inp, reg_buffer, out, stream)
    }

    /// `register_buffer(int fa, Tensor t, str[] handles, int[] offsets) -> ()`: makes a buffer known, by handles.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], and as
    /// [`AllReduce::register_buffer_by_handle`](crate::AllReduce::register_buffer_by_handle).
    pub fn register_buffer_rocm(
        &self,
        fa: i64,
        t: &Tensor,
        handles: &[Vec<u8>],
        offsets: &[i64],
    ) -> Result<(), Error> {
        check_count("offsets", handles.len(), offsets.len())?;
        let of_ranks: Result<Vec<_>, Error> = handles
            .iter()
            .zip(offsets)
            .map(|(handle, offset)| Ok((handle_from(handle)?, offset_from(*offset)?)))
            .collect();
        let of_ranks = of_ranks?;
        self.with(fa, |all_reduce| {
            t.lend(all_reduce.driver())?;
            all_reduce.register_buffer_by_handle(t.address, t.bytes(), &of_ranks)
        })
    }

    /// `get_graph_buffer_ipc_meta(int fa) -> (Tensor, int[])`: the handles' bytes, 64 for each captured input, and offsets.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Driver`].
    pub fn get_graph_buffer_ipc_meta_rocm(&self, fa: i64) -> Result<(Vec<u8>, Vec<i64>), Error> {
        let buffers = self.with(fa, |all_reduce| all_reduce.graph_buffers())?;
        let bytes = buffers.iter().flat_map(|(handle, _)| *handle).collect();
        Ok((bytes, buffers.iter().map(|(_, offset)| *offset as i64).collect()))
    }

    /// `register_graph_buffers(int fa, str[] handles, int[][] offsets) -> ()`: of each rank, what its
    /// [`Surface::get_graph_buffer_ipc_meta_rocm`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], and as [`AllReduce::register_graph_buffers`](crate::AllReduce::register_graph_buffers).
    pub fn register_graph_buffers_rocm(
        &self,
        fa: i64,
        handles: &[Vec<u8>],
        offsets: &[Vec<i64>],
    ) -> Result<(), Error> {
        check_count("lists of offsets", handles.len(), offsets.len())?;
        let of_ranks: Result<Vec<_>, Error> =
            handles.iter().zip(offsets).map(|(handles, offsets)| buffers(handles, offsets)).collect();
        let of_ranks = of_ranks?;
        self.with(fa, |all_reduce| all_reduce.register_graph_buffers(&of_ranks))
    }

    /// `allocate_meta_buffer(int size) -> Tensor`: new zeroed memory of the kind that signals need, also while capturing; its
    /// address. [`Surface::free_buffer`] gives it back.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn allocate_meta_buffer(&self, device: &Device, size: i64) -> Result<u64, Error> {
        device.allocate_uncached(offset_from(size)?)
    }

    /// Gives back what [`Surface::allocate_meta_buffer`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn free_buffer(&self, device: &Device, address: u64) -> Result<(), Error> {
        device.free(address)
    }

    /// `get_meta_buffer_ipc_handle(Tensor inp) -> Tensor`: the 64 bytes by which others open the allocation that begins there.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn get_meta_buffer_ipc_handle(&self, device: &Device, inp: &Tensor) -> Result<Handle, Error> {
        device.export(inp.address)
    }
}

/// Every rank's memory as seen here; what was opened for it, to be closed whatever happens next.
fn open_all(
    device: &Device,
    meta: &Tensor,
    handles: &[Vec<u8>],
    offsets: &[i64],
    rank: i64,
    opened: &mut Vec<(Handle, u64)>,
) -> Result<Vec<u64>, Error> {
    let mut metas = Vec::with_capacity(handles.len());
    for (peer, (handle, offset)) in handles.iter().zip(offsets).enumerate() {
        if i64::try_from(peer) == Ok(rank) {
            metas.push(meta.address);
            continue;
        }
        let (handle, offset) = (handle_from(handle)?, offset_from(*offset)?);
        let known = opened.iter().find(|(known, _)| *known == handle).map(|(_, base)| *base);
        let base = match known {
            Some(base) => base,
            None => {
                let base = device.open(&handle)?;
                opened.push((handle, base));
                base
            }
        };
        let (found, needed) =
            (device.allocation_of(base)?.bytes, offset.saturating_add(crate::layout::META_BYTES));
        if needed > found {
            return Err(Error::TooSmall { what: "a peer's memory for signals", found, needed });
        }
        metas.push(base + offset as u64);
    }
    Ok(metas)
}
