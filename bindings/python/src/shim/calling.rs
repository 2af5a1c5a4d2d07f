//! Calling an operator from Python.
//!
//! torch's own object for an operator calls the compiled function through a frame of Python, and has a plain `RuntimeError`
//! for whatever a kernel says. This does the same without the frame, and raises what the kernel meant. It is a function of C's and
//! not of pyo3's: pyo3 would believe that its thread holds the interpreter's lock while torch has let go of it.

#![allow(unsafe_code)]

use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::failure::take_failure;

/// The function's description, which Python wants to live for ever.
struct Description(ffi::PyMethodDef);

// SAFETY: it is never changed, by anybody.
unsafe impl Sync for Description {}

static CALL: Description = Description(ffi::PyMethodDef {
    ml_name: c"call".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionWithKeywords: call },
    ml_flags: ffi::METH_VARARGS | ffi::METH_KEYWORDS,
    ml_doc: c"Call an operator; what its kernel meant is raised.".as_ptr(),
});

/// A function that calls an operator's compiled function; see `unisono._core.caller` in `_core.pyi`.
#[pyfunction]
pub(crate) fn caller(operator: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = operator.py();
    // SAFETY: the description lives for ever, and Python only reads it; the function gets a reference of its own to the operator.
    unsafe {
        let description = (&raw const CALL.0).cast_mut();
        Bound::from_owned_ptr_or_err(py, ffi::PyCFunction_NewEx(description, operator.as_ptr(), null_mut()))
    }
}

/// # Safety
/// Python's, for a function with these flags: it holds the lock, the first is what the function was made with.
unsafe extern "C" fn call(
    operator: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: all three are Python's for the time of this call, the last null or a dict; no Python code is kept from running.
    let result = unsafe { ffi::PyObject_Call(operator, args, kwargs) };
    // pyo3 would go on panicking where it fetched what a panic elsewhere had become: nothing else is fetched.
    // SAFETY: the lock is held, and an exception is set.
    if result.is_null() && unsafe { ffi::PyErr_ExceptionMatches(ffi::PyExc_RuntimeError) } != 0 {
        Python::attach(tell);
    }
    result
}

/// Replace the `RuntimeError` that torch has set by what the kernel meant.
#[cold]
fn tell(py: Python<'_>) {
    let error = PyErr::fetch(py);
    let text = error.value(py).str().map(|text| text.to_string()).unwrap_or_default();
    take_failure(&text).unwrap_or(error).restore(py);
}
