//! The side of a queue that writes.

#![allow(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use unisono::queue::{self, WhenGone, Writer, WriterControl};

use super::copying::Ways;
use super::errors::{raised, statuses, unavailable};
use super::handle::QueueHandle;
use super::pickled::Pickled;
use super::slot::QueueSlot;
use super::turns::{Loan, Turns};
use super::waits::{Patience, wait, wait_long};
use super::wire;

/// Copying more than this is done without the interpreter.
pub(super) const MUCH: usize = 128 << 10;

/// The side of a queue that writes; see `QueueWriter` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono._core")]
pub(crate) struct QueueWriter {
    turns: Arc<Turns<Writer>>,
    control: WriterControl,
    handle: QueueHandle,
    /// How many messages were sent, for whoever asks while the side is out.
    sent: Arc<AtomicU64>,
    ways: Ways,
}

impl QueueWriter {
    pub(super) fn take(
        &self,
        py: Python<'_>,
        operation: &'static str,
        patience: &mut Patience,
    ) -> PyResult<Loan<Writer>> {
        self.turns.take(py, patience)?.map_err(|why| unavailable(py, operation, why))
    }

    /// Reserve `bytes` bytes, fill them with `fill`, and send them.
    fn send_filled(
        &self,
        py: Python<'_>,
        bytes: usize,
        timeout: Option<f64>,
        fill: impl Fn(&mut queue::Slot<'_>) + Send + Sync,
    ) -> PyResult<()> {
        let mut patience = Patience::of(timeout);
        let mut loan = self.take(py, "send", &mut patience)?;
        let send = |timeout| {
            let mut slot = loan.get().reserve_within(bytes, timeout)?;
            fill(&mut slot);
            slot.commit();
            Ok(())
        };
        let sent = if bytes > MUCH { wait_long(py, patience, send) } else { wait(py, patience, send) };
        sent?.map_err(|error| raised(py, &error))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn policy(name: &str) -> PyResult<WhenGone> {
    match name {
        "fail" => Ok(WhenGone::Fail),
        "go_on" => Ok(WhenGone::GoOn),
        "await_return" => Ok(WhenGone::AwaitReturn),
        other => Err(PyValueError::new_err(format!(
            "when_gone={other:?}: expected \"fail\", \"go_on\" or \"await_return\""
        ))),
    }
}

#[pymethods]
impl QueueWriter {
    #[new]
    #[pyo3(signature = (
        reader_ranks, *, remote_ranks=None, rank=0, ring_bytes=None, max_chunks=None, max_chunk_bytes=None,
        when_gone="fail", connect_ip=None, directory=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        reader_ranks: Vec<usize>,
        remote_ranks: Option<Vec<usize>>,
        rank: usize,
        ring_bytes: Option<usize>,
        max_chunks: Option<usize>,
        max_chunk_bytes: Option<usize>,
        when_gone: &str,
        connect_ip: Option<&str>,
        directory: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut builder = Writer::builder()
            .rank(rank)
            .reader_ranks(reader_ranks)
            .remote_readers(remote_ranks.unwrap_or_default())
            .when_gone(policy(when_gone)?)
            .timeout(None);
        if let Some(bytes) = ring_bytes {
            builder = builder.ring_bytes(bytes);
        }
        if let Some(messages) = max_chunks {
            builder = builder.max_chunks(messages);
        }
        if let Some(bytes) = max_chunk_bytes {
            builder = builder.max_chunk_bytes(bytes);
        }
        if let Some(ip) = connect_ip {
            let ip: IpAddr = ip.parse().map_err(|_| {
                PyValueError::new_err(format!("connect_ip={ip:?}: expected an IPv4 or IPv6 address"))
            })?;
            builder = builder.connect_ip(ip);
        }
        if let Some(directory) = directory {
            builder = builder.directory(directory);
        }
        let writer = py.detach(|| builder.create()).map_err(|error| raised(py, &error))?;
        let (control, handle) = (writer.control(), QueueHandle(writer.handle().clone()));
        Ok(QueueWriter {
            turns: Turns::new(writer),
            control,
            handle,
            sent: Arc::default(),
            ways: Ways::default(),
        })
    }

    #[getter]
    fn handle(&self) -> QueueHandle {
        self.handle.clone()
    }

    /// How many messages have been sent.
    #[getter]
    fn messages(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn readers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        statuses(py, &self.control.readers())
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_until_ready(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let mut patience = Patience::of(timeout);
        let mut loan = self.take(py, "wait_until_ready", &mut patience)?;
        let ready = |timeout| loan.get().wait_until_ready(timeout);
        wait(py, patience, ready)?.map_err(|error| raised(py, &error))
    }

    #[pyo3(signature = (data, timeout=None))]
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<()> {
        let buffer = PyUntypedBuffer::get(data)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("send: data is not contiguous: pass a copy that is"));
        }
        let from = wire::Bytes::of(&buffer)?;
        self.send_filled(py, from.len(), timeout, |slot| from.write_to(slot, 0, &self.ways))
    }

    /// Send what was pickled; it stays there until it is cleared.
    #[pyo3(signature = (pickled, chunk_bytes, timeout=None))]
    fn send_pickled(
        &self,
        py: Python<'_>,
        pickled: &Bound<'_, Pickled>,
        chunk_bytes: usize,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let contents = pickled.get().take();
        let parts = contents.parts(py)?;
        let (bytes, flag) = wire::plan(&parts, chunk_bytes)?;
        let sent = self.send_filled(py, bytes, timeout, |slot| wire::write(slot, flag, &parts, &self.ways));
        drop(parts);
        pickled.get().give_back(contents);
        sent
    }

    #[pyo3(signature = (size, timeout=None))]
    fn reserve(&self, py: Python<'_>, size: usize, timeout: Option<f64>) -> PyResult<QueueSlot> {
        let mut patience = Patience::of(timeout);
        let mut loan = self.take(py, "reserve", &mut patience)?;
        let reserved = wait(py, patience, |timeout| {
            // SAFETY: the slot goes into an object beside the loan, which drops it first; an error holds nothing.
            unsafe { loan.lend() }.reserve_within(size, timeout)
        })?;
        match reserved {
            Ok(slot) => Ok(QueueSlot::new(slot, loan, Arc::clone(&self.sent))),
            Err(error) => Err(raised(py, &error)),
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
