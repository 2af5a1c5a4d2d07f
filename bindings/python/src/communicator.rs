//! The class `Communicator`: how ranks meet, and what is no collective. The collectives are in `collectives` and `uneven`.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use unisono::{Builder, Exchange};

use crate::errors::{self, raised};
use crate::exits::Started;
use crate::registered::Registry;
use crate::signals;
use crate::tensor::Tensor;
use crate::work::Work;

/// A rank's handle on its group; see `unisono.Communicator` in `_core.pyi` for the documentation.
#[pyclass(frozen, weakref, module = "unisono")]
pub(crate) struct Communicator {
    inner: ManuallyDrop<unisono::Communicator>,
    pub(crate) registered: Arc<Registry>,
    started: ManuallyDrop<Arc<Started>>,
}

impl Drop for Communicator {
    /// The last handle waits for asynchronous operations, which may need other threads of this interpreter.
    fn drop(&mut self) {
        // SAFETY: this is the end of the object, and nothing uses the fields after they were taken.
        let handles = unsafe { (ManuallyDrop::take(&mut self.inner), ManuallyDrop::take(&mut self.started)) };
        let mut handles = Some(handles);
        Python::try_attach(|py| py.detach(|| drop(handles.take())));
    }
}

impl Communicator {
    /// Of a group that has no handle in Python yet.
    fn new(inner: unisono::Communicator) -> Self {
        let started = ManuallyDrop::new(Started::on(&inner));
        Communicator { inner: ManuallyDrop::new(inner), registered: Arc::default(), started }
    }

    /// The library's handle.
    pub(crate) fn inner(&self) -> &unisono::Communicator {
        &self.inner
    }

    /// Make a call that waits for other ranks, without the interpreter.
    pub(crate) fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&unisono::Communicator) -> unisono::Result<T> + Send,
    ) -> PyResult<T> {
        signals::make_ready(py)?;
        let outcome = py.detach(|| call(&self.inner)).map_err(|error| raised(py, &error))?;
        // What was waited for may have come while a handler ran that raised: the call is over, and what was raised is told.
        signals::take_raised().map_or(Ok(outcome), Err)
    }

    /// Make a call on `tensors` whose outcome is `result`: now, or, unless it is to `wait`, in its turn.
    pub(crate) fn carry_out<'py>(
        &self,
        tensors: &[&Tensor<'_, 'py>],
        result: Bound<'py, PyAny>,
        wait: bool,
        call: impl FnOnce(&unisono::Communicator) -> unisono::Result<()> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = result.py();
        if wait {
            self.detached(py, call)?;
            return Ok(result);
        }
        let mut kept = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            kept.push(tensor.keep()?);
        }
        let pending = py.detach(|| {
            let running = self.started.one_more();
            let mut call = Some((call, running));
            self.inner.start(kept, move |comm, _| call.take().map_or(Ok(()), |(call, _running)| call(comm)))
        });
        Ok(Bound::new(py, Work::new(pending, result.unbind()))?.into_any())
    }
}

/// Seconds as Python has them: `inf` is for ever.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<Option<Duration>> {
    if seconds == f64::INFINITY {
        return Ok(None);
    }
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
        PyValueError::new_err(format!("{name}={seconds}: expected seconds, or float('inf') for ever"))
    })
}

/// Meet the other ranks.
#[pyfunction]
#[pyo3(signature = (
    *, rank=None, world_size=None, address=None, port=None, group=None, run_id=None, timeout=None,
    rendezvous_timeout=None, threads=None, exchange=None
))]
#[expect(clippy::too_many_arguments, reason = "they are keywords")]
pub(crate) fn init(
    py: Python<'_>,
    rank: Option<usize>,
    world_size: Option<usize>,
    address: Option<&str>,
    port: Option<u16>,
    group: Option<&str>,
    run_id: Option<&str>,
    timeout: Option<f64>,
    rendezvous_timeout: Option<f64>,
    threads: Option<usize>,
    exchange: Option<Py<PyAny>>,
) -> PyResult<Communicator> {
    let ranks = match (rank, world_size) {
        (None, None) => None,
        (Some(rank), Some(world)) => Some((rank, world)),
        _ => {
            return Err(PyValueError::new_err(
                "init: give rank and world_size, or neither (the environment's)",
            ));
        }
    };
    let timeout = timeout.map(|timeout| duration("timeout", timeout)).transpose()?;
    let rendezvous_timeout =
        rendezvous_timeout.map(|timeout| duration("rendezvous_timeout", timeout)).transpose()?;
    signals::make_ready(py)?;
    let by_exchange = Arc::<Mutex<Option<PyErr>>>::default();
    let connect = || {
        let mut builder = match ranks {
            Some((rank, world)) => Builder::default().rank(rank).world_size(world),
            None => Builder::from_env()?,
        };
        builder = given(builder, address, Builder::address);
        builder = given(builder, port, Builder::port);
        builder = given(builder, group, Builder::group_name);
        builder = given(builder, run_id, Builder::run_id);
        builder = given(builder, timeout, Builder::timeout);
        let patience = rendezvous_timeout.map(|timeout| timeout.unwrap_or(Duration::MAX));
        builder = given(builder, patience, Builder::rendezvous_timeout);
        builder = given(builder, threads, Builder::threads);
        let exchange = exchange.map(|function| PythonExchange { function, raised: Arc::clone(&by_exchange) });
        given(builder, exchange, Builder::exchange).connect()
    };
    let met = py.detach(connect).map_err(|error| raised(py, &error));
    // What the exchange raised, a Ctrl-C in it above all, is what the caller gets.
    let comm = met.map_err(|error| match by_exchange.lock().take() {
        Some(raised) => {
            if raised.cause(py).is_none() {
                raised.set_cause(py, Some(error));
            }
            raised
        }
        None => error,
    })?;
    let comm = Communicator::new(comm);
    // As in `detached`; this rank leaves.
    signals::take_raised().map_or(Ok(comm), Err)
}

/// The builder, told what was given.
fn given<T>(builder: Builder, value: Option<T>, tell: impl FnOnce(Builder, T) -> Builder) -> Builder {
    match value {
        Some(value) => tell(builder, value),
        None => builder,
    }
}

/// Ranks that are threads of this process.
#[pyfunction]
pub(crate) fn in_process(py: Python<'_>, world_size: usize) -> PyResult<Vec<Communicator>> {
    let ranks = unisono::Communicator::in_process(world_size).map_err(|error| raised(py, &error))?;
    Ok(ranks.into_iter().map(Communicator::new).collect())
}

/// A function of Python's from the bytes of this rank to those of all ranks.
struct PythonExchange {
    function: Py<PyAny>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Exchange for PythonExchange {
    fn all_gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        Python::attach(|py| {
            let gathered =
                self.function.call1(py, (PyBytes::new(py, bytes),)).and_then(|all| all.extract(py));
            gathered.map_err(|error| {
                let problem = format!("the exchange raised {error}");
                *self.raised.lock() = Some(error);
                problem
            })
        })
    }
}

#[pymethods]
impl Communicator {
    #[getter]
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    #[getter]
    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    #[getter]
    fn size(&self) -> usize {
        self.inner.world_size()
    }

    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    #[getter]
    fn window_bytes(&self) -> usize {
        self.inner.parameters().window_bytes
    }

    #[getter]
    fn timeout(&self) -> f64 {
        self.inner.timeout().map_or(f64::INFINITY, |timeout| timeout.as_secs_f64())
    }

    fn with_timeout(&self, timeout: f64) -> PyResult<Communicator> {
        let inner = self.inner.with_timeout(duration("timeout", timeout)?);
        Ok(Communicator {
            inner: ManuallyDrop::new(inner),
            registered: Arc::clone(&self.registered),
            started: self.started.clone(),
        })
    }

    fn peers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        errors::statuses(py, &self.inner.peers())
    }

    #[pyo3(signature = (*, wait=true))]
    fn barrier<'py>(&self, py: Python<'py>, wait: bool) -> PyResult<Bound<'py, PyAny>> {
        self.carry_out(&[], py.None().into_bound(py), wait, |comm| comm.barrier())
    }

    #[pyo3(signature = (color, key=0))]
    fn split(&self, py: Python<'_>, color: Option<u64>, key: i64) -> PyResult<Option<Communicator>> {
        let part = self.detached(py, |comm| comm.split(color, key))?;
        Ok(part.map(Communicator::new))
    }

    fn abort(&self, py: Python<'_>) {
        py.detach(|| self.inner.abort());
    }

    #[pyo3(signature = (timeout=60.0))]
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = duration("timeout", timeout)?.unwrap_or(Duration::MAX);
        self.detached(py, |comm| comm.close(timeout))
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.inner.leave());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Leaves together if all went well; else at once, so that nobody waits for this rank.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if kind.is_none() {
            return self.close(py, 60.0);
        }
        self.abort(py);
        Ok(())
    }

    fn __repr__(&self) -> String {
        let (rank, world) = (self.inner.rank(), self.inner.world_size());
        format!("<unisono.Communicator rank={rank} world_size={world} name={:?}>", self.inner.name())
    }
}
