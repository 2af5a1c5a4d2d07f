//! Room for a message, filled in place.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use unisono::queue::{Slot, Writer};

use super::turns::Loan;

/// Room for one message; see `QueueSlot` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono._core")]
pub(crate) struct QueueSlot {
    held: Mutex<Option<Held>>,
    /// How many views there are of it.
    views: AtomicUsize,
    /// How many messages the writer has sent.
    sent: Arc<AtomicU64>,
    /// Where it is mapped.
    process: u32,
}

/// The order matters: the slot is dropped before the writer is put back.
struct Held {
    slot: Slot<'static>,
    _writer: Loan<Writer>,
}

impl QueueSlot {
    pub(super) fn new(slot: Slot<'static>, writer: Loan<Writer>, sent: Arc<AtomicU64>) -> Self {
        writer.keep_for_guard();
        let held = Mutex::new(Some(Held { slot, _writer: writer }));
        QueueSlot { held, views: AtomicUsize::new(0), sent, process: std::process::id() }
    }

    fn end(&self) -> PyResult<Option<Held>> {
        match self.views.load(Ordering::Relaxed) {
            0 => Ok(self.held.lock().take()),
            views => Err(PyBufferError::new_err(format!(
                "{views} views of the slot are in use: release them first, nothing was sent"
            ))),
        }
    }
}

fn forked() -> PyErr {
    PyBufferError::new_err("this process was forked from the one that has the slot")
}

#[pymethods]
impl QueueSlot {
    fn __len__(&self) -> usize {
        self.held.lock().as_ref().map_or(0, |held| held.slot.len())
    }

    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf)
    }

    /// Send it.
    fn commit(&self) -> PyResult<()> {
        if self.process != std::process::id() {
            return Err(forked());
        }
        match self.end()? {
            Some(held) => {
                held.slot.commit();
                self.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            None => Err(PyValueError::new_err("commit: the slot was committed or discarded already")),
        }
    }

    /// Let it never have been.
    fn discard(&self) -> PyResult<()> {
        self.end().map(drop)
    }

    /// # Safety
    /// Python's: `view` is valid, and given back by `PyBuffer_Release`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        if this.process != std::process::id() {
            return Err(forked());
        }
        let mut held = this.held.lock();
        let Some(held) = &mut *held else {
            return Err(PyBufferError::new_err("the slot was committed or discarded"));
        };
        let (start, length) = (held.slot.as_mut_ptr(), isize::try_from(held.slot.len())?);
        // SAFETY: `view` is valid (the caller); the slot has that many bytes at its address, and stays for as long as there are
        // views (`end`).
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), length, 0, flags) };
        if filled < 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        this.views.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// # Safety
    /// Python's: `_view` was filled by `__getbuffer__`.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.views.fetch_sub(1, Ordering::Relaxed);
    }
}
