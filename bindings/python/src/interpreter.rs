//! Taking the interpreter's lock where it is not known who let go of it.
//!
//! pyo3 counts, for each thread, whether it holds the lock, and does not take it again if it believes so. When torch is called
//! under pyo3's count it lets go of the lock by itself, which pyo3 does not see; what torch then calls must not believe the count.

#![allow(unsafe_code)]

use pyo3::{Python, ffi};

/// Holds the lock for certain.
struct Held(ffi::PyGILState_STATE);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: what `PyGILState_Ensure` gave on this thread, given back once, in turn.
        unsafe { ffi::PyGILState_Release(self.0) }
    }
}

/// Do something with the interpreter, whether pyo3 believes that this thread holds its lock or not. Nothing if there is no interpreter
/// any more.
pub(crate) fn attached<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    // SAFETY: may be asked at any time.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        return None;
    }
    // SAFETY: there is an interpreter; whether this thread holds the lock already does not matter.
    let _held = Held(unsafe { ffi::PyGILState_Ensure() });
    // Whatever pyo3 believes, it is true now, or it takes the lock once more, which is allowed.
    Python::try_attach(work)
}
