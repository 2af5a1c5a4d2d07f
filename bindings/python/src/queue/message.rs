//! A message where it lies.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PySlice};
use unisono::queue::{Message, Reader};

use super::errors::malformed;
use super::turns::Loan;
use super::wire;
use super::writer::MUCH;

/// The next message; see `QueueMessage` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono._core")]
pub(crate) struct QueueMessage {
    held: Mutex<Option<Held>>,
    /// How many views there are of it.
    views: AtomicUsize,
    number: u64,
    /// Where it is mapped.
    process: u32,
}

/// The order matters: the message is dropped, and so taken, before the reader is put back.
pub(super) struct Held {
    pub(super) message: Message<'static>,
    pub(super) reader: Loan<Reader>,
}

impl Held {
    /// A copy of the message's bytes from `start` to `end`. One for which there is no memory stays the next message.
    pub(super) fn copied<'py>(
        self,
        py: Python<'py>,
        start: usize,
        end: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let copy = PyBytes::new_with(py, end.saturating_sub(start), |into| {
            wire::copy_from(&self.message, start, into);
            Ok(())
        });
        if copy.is_err() {
            self.keep();
        }
        copy
    }

    fn keep(self) {
        let Held { message, reader } = self;
        message.keep();
        drop(reader);
    }
}

impl QueueMessage {
    pub(super) fn new(held: Held) -> Self {
        held.reader.keep_for_guard();
        let number = held.message.number();
        let (views, process) = (AtomicUsize::new(0), std::process::id());
        QueueMessage { held: Mutex::new(Some(held)), views, number, process }
    }

    fn end(&self) -> PyResult<Option<Held>> {
        match self.views.load(Ordering::Relaxed) {
            0 => Ok(self.held.lock().take()),
            views => Err(PyBufferError::new_err(format!(
                "{views} views of the message are in use: copy what is to stay, and release them"
            ))),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&Message<'static>) -> T) -> PyResult<T> {
        match &*self.held.lock() {
            Some(held) => Ok(look(&held.message)),
            None => Err(PyValueError::new_err("the message was released")),
        }
    }
}

/// Counts as a view of a message: it stays meanwhile.
struct View<'m>(&'m QueueMessage);

impl<'m> View<'m> {
    fn of(message: &'m QueueMessage) -> Self {
        message.views.fetch_add(1, Ordering::Relaxed);
        View(message)
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.0.views.fetch_sub(1, Ordering::Relaxed);
    }
}

fn forked() -> PyErr {
    PyBufferError::new_err("this process was forked from the one that has the message")
}

#[pymethods]
impl QueueMessage {
    fn __len__(&self) -> PyResult<usize> {
        self.with(Message::len)
    }

    /// The same for every reader: the queue's first message is 0.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        if self.process != std::process::id() {
            return Err(forked());
        }
        self.with(|message| {
            PyBytes::new_with(py, message.len(), |into| {
                message.copy_to(into);
                Ok(())
            })
        })?
    }

    /// Take it: its room goes back to the writer.
    fn release(&self) -> PyResult<()> {
        self.end().map(drop)
    }

    /// Do not take it: it stays the next message.
    fn keep(&self) -> PyResult<()> {
        self.end()?.into_iter().for_each(Held::keep);
        Ok(())
    }

    /// What `send_pickled` made: whether it was longer than a chunk, its first part in place, and copies of the others.
    fn parts<'py>(slf: &Bound<'py, Self>) -> PyResult<(bool, Bound<'py, PyAny>, Bound<'py, PyList>)> {
        let (py, this) = (slf.py(), slf.get());
        if this.process != std::process::id() {
            return Err(forked());
        }
        let (plan, contents) =
            this.with(|message| (wire::find(message), wire::Bytes::of_message(message)))?;
        let plan = plan.map_err(|problem| malformed(py, this.number, problem))?;
        // What is copied without the interpreter must not be taken by another thread meanwhile.
        let _view = View::of(this);
        let copies = PyList::empty(py);
        for part in &plan.others {
            let copy = PyByteArray::new(py, &[]);
            copy.resize(part.len())?;
            // SAFETY: it was made here, and nobody else has it before it is in the list that is returned.
            let into = unsafe { copy.as_bytes_mut() };
            let mut copy_out = || contents.copy_at(part.start, into);
            if part.len() > MUCH {
                py.detach(copy_out)
            } else {
                copy_out()
            }
            copies.append(copy)?;
        }
        let all = PyMemoryView::from(slf)?;
        let main = all.get_item(PySlice::new(
            py,
            isize::try_from(plan.main.start)?,
            isize::try_from(plan.main.end)?,
            1,
        ))?;
        all.call_method0("release")?;
        Ok((plan.is_overflow, main, copies))
    }

    /// # Safety
    /// Python's: `view` is valid, and given back by `PyBuffer_Release`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        if this.process != std::process::id() {
            return Err(forked());
        }
        let (start, length) = this
            .with(|message| (message.as_ptr(), message.len()))
            .map_err(|_| PyBufferError::new_err("the message was released"))?;
        // SAFETY: `view` is valid (the caller); the message has that many bytes at its address, is shown for reading alone, and
        // stays for as long as there are views (`end`).
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                start.cast_mut().cast(),
                isize::try_from(length)?,
                1,
                flags,
            )
        };
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
