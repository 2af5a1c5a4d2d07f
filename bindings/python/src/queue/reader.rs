//! The side of a queue that reads.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use unisono::queue::{Reader, ReaderControl};

use super::errors::{raised, unavailable};
use super::handle::QueueHandle;
use super::message::{Held, QueueMessage};
use super::turns::{Loan, Turns};
use super::waits::{Patience, patience, wait, wait_beside};
use super::wire;

/// How long a writer may take to let a reader in.
const OPENING_TAKES: Duration = Duration::from_secs(30);

/// The side of a queue that reads; see `QueueReader` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono._core")]
pub(crate) struct QueueReader {
    turns: Arc<Turns<Reader>>,
    control: ReaderControl,
    rank: usize,
    /// The number of the next message, as far as is known.
    next: AtomicU64,
}

impl QueueReader {
    fn take(
        &self,
        py: Python<'_>,
        operation: &'static str,
        patience: &mut Patience,
    ) -> PyResult<Loan<Reader>> {
        self.turns.take(py, patience)?.map_err(|why| unavailable(py, operation, why))
    }

    /// The next message, with the reader that it borrows.
    #[inline]
    fn next_message(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Held> {
        let mut patience = Patience::of(timeout);
        let mut reader = self.take(py, "recv", &mut patience)?;
        let found = wait(py, patience, |timeout| {
            // SAFETY: the message goes beside the loan, which drops it first; an error holds nothing.
            unsafe { reader.lend() }.recv_within(timeout)
        })?;
        match found {
            Ok(message) => {
                self.next.store(message.number() + 1, Ordering::Relaxed);
                Ok(Held { message, reader })
            }
            Err(error) => Err(raised(py, &error)),
        }
    }
}

#[pymethods]
impl QueueReader {
    #[new]
    #[pyo3(signature = (handle, rank, *, timeout=None))]
    fn new(
        py: Python<'_>,
        handle: &Bound<'_, QueueHandle>,
        rank: usize,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let handle = handle.get().0.clone();
        let timeout = patience(timeout).unwrap_or(OPENING_TAKES);
        let opened = wait_beside(py, move || Reader::open_within(&handle, rank, timeout))?;
        let reader = opened.map_err(|error| raised(py, &error))?;
        let control = reader.control();
        Ok(QueueReader { turns: Turns::new(reader), control, rank, next: AtomicU64::new(0) })
    }

    #[getter]
    fn rank(&self) -> usize {
        self.rank
    }

    /// The number of the message after the last one that was received; 0 before the first.
    #[getter]
    fn next_number(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_until_ready(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let mut patience = Patience::of(timeout);
        let mut loan = self.take(py, "wait_until_ready", &mut patience)?;
        let ready = |timeout| loan.get().wait_until_ready(timeout);
        wait(py, patience, ready)?.map_err(|error| raised(py, &error))
    }

    /// The next message, where it lies.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<QueueMessage> {
        self.next_message(py, timeout).map(QueueMessage::new)
    }

    /// A copy of the next message.
    #[pyo3(signature = (timeout=None))]
    fn recv_bytes<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyBytes>> {
        let held = self.next_message(py, timeout)?;
        let bytes = held.message.len();
        held.copied(py, 0, bytes)
    }

    /// The next message that `send_pickled` sent: a copy of its only part, if that is short; otherwise the message.
    #[pyo3(signature = (timeout=None))]
    fn recv_pickled<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let held = self.next_message(py, timeout)?;
        match wire::short_main(&held.message) {
            Some(main) => Ok(held.copied(py, main.start, main.end)?.into_any()),
            None => Ok(Bound::new(py, QueueMessage::new(held))?.into_any()),
        }
    }

    /// End the wait that is under way.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.control.cancel());
    }

    /// End every wait of this side, now and from now on.
    fn shut_down(&self, py: Python<'_>) {
        py.detach(|| self.control.shut_down());
    }

    /// Say goodbye.
    fn close(&self, py: Python<'_>) {
        let side = self.turns.close();
        py.detach(|| drop(side));
    }
}
