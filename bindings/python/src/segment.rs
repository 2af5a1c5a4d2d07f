//! Named shared memory, as an object with the buffer protocol.

#![allow(unsafe_code)]

use std::ffi::c_int;

use pyo3::ffi;
use pyo3::prelude::*;
use unisono::segment::{self, Segment};

use crate::errors::raised;

/// Named memory that processes share; see `SharedMemory` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono._core")]
pub(crate) struct SharedMemory(Segment);

#[pymethods]
impl SharedMemory {
    /// Make it, with a size; open it, without.
    #[new]
    #[pyo3(signature = (name, size=None))]
    fn new(py: Python<'_>, name: &str, size: Option<usize>) -> PyResult<Self> {
        let segment = py.detach(|| match size {
            Some(size) => Segment::create_named_zeroed(name, size),
            None => Segment::open_named(name),
        });
        segment.map(SharedMemory).map_err(|error| raised(py, &error))
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn size(&self) -> usize {
        self.0.len()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn buf<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pyo3::types::PyMemoryView::from(slf)?.into_any())
    }

    /// Remove the name. Who has it open keeps it.
    fn unlink(&self, py: Python<'_>) -> PyResult<()> {
        self.0.unlink().map_err(|error| raised(py, &error))
    }

    /// # Safety
    /// Python's: `view` is valid, and given back by `PyBuffer_Release`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let segment = &slf.get().0;
        // In a forked child it is not mapped.
        segment.read(0, &mut []).map_err(|error| raised(slf.py(), &error))?;
        let length = isize::try_from(segment.len())?;
        // SAFETY: `view` is valid (the caller); the segment has that many bytes at its address and lives as long as this
        // object, to which the view holds a reference.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), segment.as_ptr().cast(), length, 0, flags) };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}

/// See that `size` more bytes may be had.
#[pyfunction]
pub(crate) fn check_headroom(py: Python<'_>, what: &str, size: usize) -> PyResult<()> {
    segment::check_headroom(what, size).map_err(|error| raised(py, &error))
}
