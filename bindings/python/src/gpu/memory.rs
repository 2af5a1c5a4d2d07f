//! Devices and their memory: what an engine needs around the all-reduce, on any driver.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use unisono_gpu::driver::any::{Device, Platform};
use unisono_gpu::driver::sim::ProcessGraph;
use unisono_gpu::surface::topology;
use unisono_gpu::{Driver, Error};

use super::{call, surface};

/// `cuda`, `hip` or `sim`.
#[pyfunction]
pub(crate) fn gpu_platform(py: Python<'_>, device: usize) -> PyResult<&'static str> {
    call(py, |surface| {
        Ok(match surface.device(device)?.platform() {
            Platform::Cuda => "cuda",
            Platform::Hip => "hip",
            Platform::Sim => "sim",
        })
    })
}

/// New zeroed memory; its address.
#[pyfunction]
pub(crate) fn gpu_allocate(py: Python<'_>, device: usize, size: i64, uncached: bool) -> PyResult<u64> {
    call(py, |surface| {
        let device = surface.device(device)?;
        match (usize::try_from(size), uncached) {
            (Ok(_), true) => surface.allocate_meta_buffer(&device, size),
            (Ok(size), false) => device.allocate(size),
            (Err(_), _) => Err(Error::Tensor { problem: format!("{size} bytes cannot be allocated") }),
        }
    })
}

/// Give memory back.
#[pyfunction]
pub(crate) fn gpu_free(py: Python<'_>, device: usize, address: u64) -> PyResult<()> {
    call(py, |surface| surface.free_buffer(&surface.device(device)?, address))
}

/// The 64 bytes by which others open an allocation.
#[pyfunction]
pub(crate) fn gpu_export(py: Python<'_>, device: usize, address: u64) -> PyResult<Vec<u8>> {
    call(py, |surface| surface.device(device)?.export(address)).map(|handle| handle.to_vec())
}

/// Another rank's allocation; its address here.
#[pyfunction]
pub(crate) fn gpu_open(py: Python<'_>, device: usize, handle: Vec<u8>) -> PyResult<u64> {
    call(py, |surface| {
        let found = handle.len();
        let handle = handle.try_into();
        let handle = handle.map_err(|_| Error::Count { what: "bytes of a handle", expected: 64, found })?;
        surface.device(device)?.open(&handle)
    })
}

/// Take back what was opened.
#[pyfunction]
pub(crate) fn gpu_close(py: Python<'_>, device: usize, address: u64) -> PyResult<()> {
    call(py, |surface| surface.device(device)?.close(address))
}

/// By what all processes know the device.
#[pyfunction]
pub(crate) fn gpu_identity(py: Python<'_>, device: usize) -> PyResult<String> {
    call(py, |surface| surface.device(device)?.identity())
}

/// Whether the device reaches all others directly.
#[pyfunction]
pub(crate) fn gpu_is_direct(py: Python<'_>, device: usize, identities: Vec<String>) -> PyResult<bool> {
    call(py, |surface| topology::reaches_all_directly(&surface.device(device)?, &identities))
}

/// Wait for the stream.
#[pyfunction]
pub(crate) fn gpu_synchronize(py: Python<'_>, device: usize, stream: u64) -> PyResult<()> {
    call(py, |surface| {
        let device = surface.device(device)?;
        device.set_stream(stream);
        device.synchronize()
    })
}

/// What was recorded on a simulated device. On others torch has graphs.
#[pyclass(frozen)]
pub(crate) struct GpuGraph {
    graph: ProcessGraph,
}

/// From now on what is put on the stream is recorded.
#[pyfunction]
pub(crate) fn gpu_begin_capture(device: usize) -> PyResult<()> {
    simulated(device, |device| device.begin_capture())
}

/// What was recorded.
#[pyfunction]
pub(crate) fn gpu_end_capture(device: usize) -> PyResult<GpuGraph> {
    let graph = simulated(device, unisono_gpu::driver::sim::ProcessDevice::end_capture)?;
    graph.map(|graph| GpuGraph { graph }).ok_or_else(|| PyRuntimeError::new_err("nothing was being recorded"))
}

/// Run what was recorded, to its end.
#[pyfunction]
pub(crate) fn gpu_replay(py: Python<'_>, device: usize, graph: &GpuGraph) -> PyResult<()> {
    call(py, |surface| match surface.device(device)? {
        Device::Sim(device) => device.replay(&graph.graph).and_then(|()| device.synchronize()),
        _ => Err(Error::NotBuilt { what: "graphs of our own on real devices; torch has them" }),
    })
}

fn simulated<T>(
    device: usize,
    act: impl FnOnce(&unisono_gpu::driver::sim::ProcessDevice) -> T,
) -> PyResult<T> {
    match surface().device(device) {
        Ok(Device::Sim(device)) => Ok(act(&device)),
        Ok(_) => {
            Err(PyRuntimeError::new_err("only simulated devices record here; torch has graphs for others"))
        }
        Err(error) => Err(PyRuntimeError::new_err(error.to_string())),
    }
}
