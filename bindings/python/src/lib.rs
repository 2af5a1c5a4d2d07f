//! `unisono._core`: the compiled part of the Python package.
//!
//! Thin on purpose: what a Python object holds is found out here (`tensor`), the interpreter is let go of, and the library
//! does the rest. What needs no compiled code is Python, in `python/unisono`.
//!
//! | file | what |
//! |---|---|
//! | `communicator`, `collectives`, `uneven`, `transfers` | the class `Communicator` |
//! | `tensor`, `dlpack`, `element` | where an object's memory lies, and what is in it |
//! | `fold` | several tensors of this process folded into one, with the library's arithmetic |
//! | `registered` | memory that all ranks have mapped |
//! | `segment` | named shared memory |
//! | `work` | operations that were started and are waited for later |
//! | `exits` | started operations when the interpreter ends |
//! | `errors` | the library's errors as Python exceptions |
//! | `signals` | Ctrl-C during a wait |
//! | `gpu/` | the all-reduce between GPUs |
//! | `interpreter` | taking the interpreter's lock where torch may have let go of it |
//! | `queue` | the message queue |
//! | `records` | the library's log events, on their way to Python's `logging` |
//! | `shim/` | operators of torch's in Rust, through its stable C interface |
//! | `sgl/` | SGLang's shared-memory operators |
//!
//! The one invariant that matters: **no thread of the library ever takes the interpreter's lock**, and nobody waits for
//! another rank or thread while holding it. So neither can keep the other from ending.

mod collectives;
mod communicator;
mod dlpack;
mod element;
mod errors;
mod exits;
mod fold;
mod gpu;
mod interpreter;
mod queue;
mod records;
mod registered;
mod segment;
mod sgl;
mod shim;
mod signals;
mod tensor;
mod transfers;
mod uneven;
mod work;

#[cfg(Py_GIL_DISABLED)]
compile_error!(
    "free-threaded builds of Python are not supported: use a build with the global interpreter lock"
);

/// The compiled part of the package `unisono`.
#[pyo3::pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::communicator::{Communicator, in_process, init};
    #[pymodule_export]
    use super::exits::end_started;
    #[pymodule_export]
    use super::fold::fold;
    #[pymodule_export]
    use super::gpu::{
        GpuGraph, gpu_all_reduce, gpu_all_reduce_unreg, gpu_allocate, gpu_begin_capture, gpu_check,
        gpu_close, gpu_dispose, gpu_end_capture, gpu_export, gpu_free, gpu_get_graph_buffer_ipc_meta,
        gpu_identity, gpu_init_custom_ar, gpu_init_custom_ar_rocm, gpu_init_custom_qr, gpu_is_direct,
        gpu_meta_size, gpu_mscclpp_allreduce, gpu_mscclpp_check, gpu_mscclpp_dispose,
        gpu_mscclpp_generate_unique_id, gpu_mscclpp_init_context, gpu_open, gpu_platform, gpu_qr_all_reduce,
        gpu_qr_check, gpu_qr_destroy, gpu_qr_get_handle, gpu_qr_max_size, gpu_qr_open_handles,
        gpu_register_buffer, gpu_register_buffer_rocm, gpu_register_graph_buffers, gpu_replay,
        gpu_set_patience, gpu_synchronize,
    };
    #[pymodule_export]
    use super::queue::{Pickled, QueueHandle, QueueMessage, QueueReader, QueueSlot, QueueWriter};
    #[pymodule_export]
    use super::records::{collect_records, next_record};
    #[pymodule_export]
    use super::registered::RegisteredBuffer;
    #[pymodule_export]
    use super::segment::{SharedMemory, check_headroom};
    #[pymodule_export]
    use super::sgl::{shm_adopt, shm_register, shm_release, shm_schemas};
    #[pymodule_export]
    use super::shim::{caller, take_failure};
    #[pymodule_export]
    use super::work::Work;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn initialise(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
