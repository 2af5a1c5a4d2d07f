//! The functions of `sgl_kernel.allreduce`, those of both platforms.

use std::time::Duration;

use pyo3::prelude::*;

use super::{Described, call, tensor};

/// Bytes of a rank's signals, as callers on either platform reserve them.
#[pyfunction]
#[pyo3(signature = (rocm=false))]
pub(crate) fn gpu_meta_size(rocm: bool) -> i64 {
    let surface = super::surface();
    if rocm { surface.meta_size_rocm() } else { surface.meta_size() }
}

/// Begin an all-reduce, peers' memory by address.
#[pyfunction]
pub(crate) fn gpu_init_custom_ar(
    py: Python<'_>,
    device: usize,
    ipc_tensors: Vec<i64>,
    rank_data: Described,
    rank: i64,
    full_nvlink: bool,
) -> PyResult<i64> {
    call(py, |surface| {
        let device = surface.device(device)?;
        surface.init_custom_ar(device, &ipc_tensors, &tensor(rank_data), rank, full_nvlink)
    })
}

/// Begin an all-reduce, peers' memory by handle and offset.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the operator's")]
pub(crate) fn gpu_init_custom_ar_rocm(
    py: Python<'_>,
    device: usize,
    meta: Described,
    rank_data: Described,
    handles: Vec<Vec<u8>>,
    offsets: Vec<i64>,
    rank: i64,
    full_nvlink: bool,
) -> PyResult<i64> {
    call(py, |surface| {
        let (device, meta, rank_data) = (surface.device(device)?, tensor(meta), tensor(rank_data));
        surface.init_custom_ar_rocm(device, &meta, &rank_data, &handles, &offsets, rank, full_nvlink)
    })
}

/// An all-reduce on a stream; `reg_buffer` 0: the input is registered itself, or a graph is captured.
#[pyfunction]
pub(crate) fn gpu_all_reduce(
    py: Python<'_>,
    fa: i64,
    inp: Described,
    out: Described,
    reg_buffer: i64,
    reg_buffer_sz_bytes: i64,
    stream: u64,
) -> PyResult<()> {
    call(py, |surface| {
        surface.all_reduce(fa, &tensor(inp), &tensor(out), reg_buffer, reg_buffer_sz_bytes, stream)
    })
}

/// The same by way of a registered tensor.
#[pyfunction]
pub(crate) fn gpu_all_reduce_unreg(
    py: Python<'_>,
    fa: i64,
    inp: Described,
    reg_buffer: Described,
    out: Described,
    stream: u64,
) -> PyResult<()> {
    call(py, |surface| surface.all_reduce_unreg(fa, &tensor(inp), &tensor(reg_buffer), &tensor(out), stream))
}

/// Make a buffer known by its addresses.
#[pyfunction]
pub(crate) fn gpu_register_buffer(py: Python<'_>, fa: i64, fake_ipc_ptrs: Vec<i64>) -> PyResult<()> {
    call(py, |surface| surface.register_buffer(fa, &fake_ipc_ptrs))
}

/// Make a buffer known by handles and offsets.
#[pyfunction]
pub(crate) fn gpu_register_buffer_rocm(
    py: Python<'_>,
    fa: i64,
    t: Described,
    handles: Vec<Vec<u8>>,
    offsets: Vec<i64>,
) -> PyResult<()> {
    call(py, |surface| surface.register_buffer_rocm(fa, &tensor(t), &handles, &offsets))
}

/// Handles, 64 bytes for each captured input, and offsets.
#[pyfunction]
pub(crate) fn gpu_get_graph_buffer_ipc_meta(py: Python<'_>, fa: i64) -> PyResult<(Vec<u8>, Vec<i64>)> {
    call(py, |surface| surface.get_graph_buffer_ipc_meta_rocm(fa))
}

/// Fill the rows of captured inputs: of each rank, handles and offsets.
#[pyfunction]
pub(crate) fn gpu_register_graph_buffers(
    py: Python<'_>,
    fa: i64,
    handles: Vec<Vec<u8>>,
    offsets: Vec<Vec<i64>>,
) -> PyResult<()> {
    call(py, |surface| surface.register_graph_buffers_rocm(fa, &handles, &offsets))
}

/// Give back what belongs to an all-reduce.
#[pyfunction]
pub(crate) fn gpu_dispose(py: Python<'_>, fa: i64) -> PyResult<()> {
    call(py, |surface| surface.dispose(fa))
}

/// Wait for the stream; raise if a kernel waited for a peer in vain.
#[pyfunction]
pub(crate) fn gpu_check(py: Python<'_>, fa: i64) -> PyResult<()> {
    call(py, |surface| surface.check(fa))
}

/// How long kernels wait for a peer.
#[pyfunction]
pub(crate) fn gpu_set_patience(py: Python<'_>, fa: i64, seconds: f64) -> PyResult<()> {
    let patience = Duration::try_from_secs_f64(seconds).map_err(|problem| {
        pyo3::exceptions::PyValueError::new_err(format!("{seconds} seconds: {problem}"))
    })?;
    call(py, |surface| surface.set_patience(fa, patience))
}

/// Begin a quick all-reduce.
#[pyfunction]
#[pyo3(signature = (device, rank, world_size, qr_max_size))]
pub(crate) fn gpu_init_custom_qr(
    py: Python<'_>,
    device: usize,
    rank: i64,
    world_size: i64,
    qr_max_size: Option<i64>,
) -> PyResult<i64> {
    call(py, |surface| surface.init_custom_qr(surface.device(device)?, rank, world_size, qr_max_size))
}

/// The 64 bytes by which peers open its memory.
#[pyfunction]
pub(crate) fn gpu_qr_get_handle(py: Python<'_>, fa: i64) -> PyResult<Vec<u8>> {
    call(py, |surface| surface.qr_get_handle(fa)).map(|handle| handle.to_vec())
}

/// Open the peers' memories.
#[pyfunction]
pub(crate) fn gpu_qr_open_handles(py: Python<'_>, fa: i64, handles: Vec<Vec<u8>>) -> PyResult<()> {
    call(py, |surface| surface.qr_open_handles(fa, &handles))
}

/// A quick all-reduce on a stream.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the operator's")]
pub(crate) fn gpu_qr_all_reduce(
    py: Python<'_>,
    fa: i64,
    inp: Described,
    out: Described,
    quant_level: i64,
    cast_bf2half: bool,
    stream: u64,
) -> PyResult<()> {
    call(py, |surface| {
        surface.qr_all_reduce(fa, &tensor(inp), &tensor(out), quant_level, cast_bf2half, stream)
    })
}

/// Wait for the stream; raise if a kernel waited for a peer in vain.
#[pyfunction]
pub(crate) fn gpu_qr_check(py: Python<'_>, fa: i64) -> PyResult<()> {
    call(py, |surface| surface.qr_check(fa))
}

/// Give back what belongs to it.
#[pyfunction]
pub(crate) fn gpu_qr_destroy(py: Python<'_>, fa: i64) -> PyResult<()> {
    call(py, |surface| surface.qr_destroy(fa))
}

/// Bytes of the largest message unless said otherwise.
#[pyfunction]
pub(crate) fn gpu_qr_max_size(py: Python<'_>) -> PyResult<i64> {
    call(py, |surface| Ok(surface.qr_max_size()))
}

/// 128 bytes by which ranks find one another.
#[pyfunction]
pub(crate) fn gpu_mscclpp_generate_unique_id(py: Python<'_>) -> PyResult<Vec<u8>> {
    call(py, |surface| surface.mscclpp_generate_unique_id())
}

/// Begin a packet context; all ranks at once.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the operator's")]
pub(crate) fn gpu_mscclpp_init_context(
    py: Python<'_>,
    device: usize,
    unique_id: Vec<u8>,
    rank: i64,
    world_size: i64,
    scratch: Described,
    put_buffer: Described,
    nranks_per_node: i64,
    rank_to_node: Vec<i64>,
    context_selection: i64,
) -> PyResult<i64> {
    call(py, |surface| {
        surface.mscclpp_init_context(
            surface.device(device)?,
            &unique_id,
            rank,
            world_size,
            &tensor(scratch),
            &tensor(put_buffer),
            nranks_per_node,
            &rank_to_node,
            context_selection,
        )
    })
}

/// An all-reduce by packets on a stream.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the operator's")]
pub(crate) fn gpu_mscclpp_allreduce(
    py: Python<'_>,
    context: i64,
    inp: Described,
    out: Described,
    nthreads: i64,
    nblocks: i64,
    stream: u64,
) -> PyResult<()> {
    call(py, |surface| {
        surface.mscclpp_allreduce(context, &tensor(inp), &tensor(out), nthreads, nblocks, stream)
    })
}

/// Wait for the stream; raise if a kernel waited for a peer in vain.
#[pyfunction]
pub(crate) fn gpu_mscclpp_check(py: Python<'_>, context: i64) -> PyResult<()> {
    call(py, |surface| surface.mscclpp_check(context))
}

/// Give back what belongs to a context.
#[pyfunction]
pub(crate) fn gpu_mscclpp_dispose(py: Python<'_>, context: i64) -> PyResult<()> {
    call(py, |surface| surface.mscclpp_dispose(context))
}
