//! What a reader finds its writer with.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use unisono::queue::Handle;

use super::errors::raised;

/// A queue's handle; see `QueueHandle` in `_core.pyi`.
#[pyclass(frozen, eq, module = "unisono._core")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct QueueHandle(pub(super) Handle);

#[pymethods]
impl QueueHandle {
    #[new]
    fn new(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        Handle::from_bytes(data).map(QueueHandle).map_err(|error| raised(py, &error))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (Bound<'py, PyBytes>,)) {
        (py.get_type::<QueueHandle>(), (self.to_bytes(py),))
    }

    fn __repr__(&self) -> String {
        format!("QueueHandle(queue {}, readers {:?})", self.0.name(), self.0.reader_ranks())
    }

    /// A short name of the queue, for messages.
    #[getter]
    fn name(&self) -> String {
        self.0.name()
    }

    #[getter]
    fn nonce<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.nonce())
    }

    #[getter]
    fn writer_rank(&self) -> usize {
        self.0.writer_rank()
    }

    #[getter]
    fn local_ranks(&self) -> Vec<usize> {
        self.0.local_ranks()
    }

    #[getter]
    fn remote_ranks(&self) -> Vec<usize> {
        self.0.remote_ranks()
    }

    /// The ip and port at which readers elsewhere find the writer.
    #[getter]
    fn remote_address(&self) -> Option<(String, u16)> {
        self.0.remote_address().map(|address| (address.ip().to_string(), address.port()))
    }

    #[getter]
    fn remote_key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.remote_key().map(|key| PyBytes::new(py, &key))
    }
}
