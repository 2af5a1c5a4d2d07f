//! Calling an operator from Python.
//!
//! torch's own object for an operator calls the compiled function through a frame of Python, and has a plain `RuntimeError`
//! for whatever a kernel says. This does the same without the frame, and raises what the kernel meant.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::failure::take_failure;

/// Calls an operator's compiled function; see `unisono._core.Caller` in `_core.pyi`.
#[pyclass(frozen, module = "unisono")]
pub(crate) struct Caller {
    operator: Py<PyAny>,
}

#[pymethods]
impl Caller {
    #[new]
    fn new(operator: Py<PyAny>) -> Self {
        Caller { operator }
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.operator.bind(args.py()).call(args, kwargs).map_err(|error| meant(args.py(), error))
    }
}

/// What the kernel meant by an error that came by way of torch.
#[cold]
fn meant(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyRuntimeError>(py) {
        return error;
    }
    let text = error.value(py).str().map(|text| text.to_string()).unwrap_or_default();
    take_failure(&text).unwrap_or(error)
}
