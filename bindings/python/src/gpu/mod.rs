//! The all-reduce between GPUs, as `unisono/sgl_kernel` calls it: integers and descriptions of tensors in, the library's call,
//! exceptions out.
//!
//! What a tensor is, Python finds out; here it is a row of numbers ([`Described`]). The interpreter is let go of during each
//! call, since a simulated device, or a device's stream, may be waited for.

mod calls;
mod errors;
mod memory;

use std::sync::OnceLock;

use pyo3::prelude::*;
use unisono_gpu::surface::{Surface, Tensor};
use unisono_gpu::{DType, Error};

pub(crate) use calls::{
    gpu_all_reduce, gpu_all_reduce_unreg, gpu_check, gpu_dispose, gpu_get_graph_buffer_ipc_meta,
    gpu_init_custom_ar, gpu_init_custom_ar_rocm, gpu_init_custom_qr, gpu_meta_size, gpu_mscclpp_allreduce,
    gpu_mscclpp_check, gpu_mscclpp_dispose, gpu_mscclpp_generate_unique_id, gpu_mscclpp_init_context,
    gpu_qr_all_reduce, gpu_qr_check, gpu_qr_destroy, gpu_qr_get_handle, gpu_qr_max_size, gpu_qr_open_handles,
    gpu_register_buffer, gpu_register_buffer_rocm, gpu_register_graph_buffers, gpu_set_patience,
};
pub(crate) use memory::{
    GpuGraph, gpu_allocate, gpu_begin_capture, gpu_close, gpu_end_capture, gpu_export, gpu_free,
    gpu_identity, gpu_is_direct, gpu_open, gpu_platform, gpu_replay, gpu_synchronize,
};

/// Address, elements, bytes of each, the name of their type, whether contiguous, bytes to the end of the storage.
pub(crate) type Described = (u64, usize, usize, String, bool, usize);

fn tensor((address, elements, element_bytes, dtype, is_contiguous, storage_bytes): Described) -> Tensor {
    let dtype = match dtype.as_str() {
        "float32" => Some(DType::F32),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        _ => None,
    };
    Tensor { address, elements, element_bytes, dtype, is_contiguous, storage_bytes }
}

/// What was begun in this process.
fn surface() -> &'static Surface {
    static SURFACE: OnceLock<Surface> = OnceLock::new();
    SURFACE.get_or_init(Surface::new)
}

/// Makes the library's call without the interpreter; its error becomes an exception.
fn call<T: Send>(
    py: Python<'_>,
    call: impl FnOnce(&'static Surface) -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(|| call(surface())).map_err(|error| errors::raised(py, &error))
}
