//! Operations that were started and are waited for later.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use unisono::{Error, Pending, interrupt};

use crate::communicator::duration;
use crate::errors::raised;
use crate::signals;
use crate::tensor::Kept;

/// An operation under way; see `unisono.Work` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono")]
pub(crate) struct Work {
    state: Mutex<State>,
    /// Nothing once it was collected as part of a cycle.
    result: Mutex<Option<Py<PyAny>>>,
}

enum State {
    Running(Pending<Vec<Kept>>),
    /// One thread is waiting for it.
    WaitedFor,
    Done(Result<(), Error>),
}

impl Work {
    pub(crate) fn new(pending: Pending<Vec<Kept>>, result: Py<PyAny>) -> Self {
        Work { state: Mutex::new(State::Running(pending)), result: Mutex::new(Some(result)) }
    }

    /// Wait until `deadline`; `None` if it is not over by then.
    fn outcome(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Option<Result<(), Error>>> {
        loop {
            let nap = deadline.map_or(interrupt::ASK_EVERY, |deadline| {
                deadline.saturating_duration_since(Instant::now()).min(interrupt::ASK_EVERY)
            });
            if let Some(outcome) = py.detach(|| self.look(nap)) {
                return Ok(Some(outcome));
            }
            py.check_signals()?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
        }
    }

    /// The outcome, if there is one within `nap`.
    fn look(&self, nap: Duration) -> Option<Result<(), Error>> {
        let mut state = self.state.lock();
        let pending = match std::mem::replace(&mut *state, State::WaitedFor) {
            State::Done(outcome) => {
                *state = State::Done(outcome.clone());
                return Some(outcome);
            }
            State::WaitedFor => {
                drop(state);
                std::thread::sleep(nap.min(Duration::from_millis(1)));
                return None;
            }
            State::Running(pending) => pending,
        };
        drop(state);
        let (after, outcome) = match pending.wait_timeout(nap) {
            Err(unfinished) => (State::Running(unfinished), None),
            Ok(result) => {
                let outcome = result.map(drop);
                (State::Done(outcome.clone()), Some(outcome))
            }
        };
        *self.state.lock() = after;
        outcome
    }
}

#[pymethods]
impl Work {
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        signals::make_ready(py)?;
        let patience = timeout.map(|timeout| duration("timeout", timeout)).transpose()?.flatten();
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        match self.outcome(py, deadline)? {
            Some(Ok(())) => {
                Ok(self.result.lock().as_ref().map_or_else(|| py.None(), |result| result.clone_ref(py)))
            }
            Some(Err(error)) => Err(raised(py, &error)),
            None => {
                let waited = patience.unwrap_or_default();
                Err(raised(py, &Error::Busy { operation: "wait", waited }))
            }
        }
    }

    /// A tensor may hold the work on it. What the operation itself holds of its tensors is not looked at: it is in use.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Held for moments, and by nobody who lets another thread run Python meanwhile.
        match self.result.try_lock() {
            Some(result) => visit.call(&*result),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let result = self.result.lock().take();
        drop(result);
    }

    fn done(&self) -> bool {
        match &*self.state.lock() {
            State::Running(pending) => pending.is_finished(),
            State::WaitedFor => false,
            State::Done(_) => true,
        }
    }
}
